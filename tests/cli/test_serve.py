"""``bge-rerank serve``, without a socket; tests/serving/test_live.py has one."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import uvicorn
from fake_reranker import FakeEngines
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from typer.testing import CliRunner, Result

from bge_rerank_integrations import EngineConfig
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.serving.middleware import ConnectionMiddleware
from bge_rerank_integrations.serving.settings import NOT_SERVED, ServerSettings
from bge_rerank_integrations.settings import SETTINGS, CallOptions

Serve = Callable[..., Result]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[uvicorn.Config]:
    """The settings of the servers that were started; none listens."""
    started: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: started.append(server.config))
    return started


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command configures the log of its process, which here is pytest's."""
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "bge_rerank_integrations")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def serve(started: list[uvicorn.Config], monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.delenv("BGE_RERANK_API_KEY", raising=False)
    return lambda *arguments, **given: CliRunner().invoke(app, ["serve", *arguments], **given)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
    return FakeEngines.installed(monkeypatch)


def application_of(config: uvicorn.Config) -> FastAPI:
    assert isinstance(config.app, ConnectionMiddleware)
    assert isinstance(config.app.app, FastAPI)
    return config.app.app


def asked_by(config: uvicorn.Config, engines: FakeEngines) -> tuple[EngineConfig, CallOptions]:
    """What the application of a server asks of its engine when it starts."""
    application = application_of(config)

    async def start() -> None:
        async with application.router.lifespan_context(application):
            while engines.asked is None:
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(start(), 20))
    assert engines.asked is not None
    return engines.asked


def test_the_settings_reach_the_engine(
    serve: Serve, started: list[uvicorn.Config], engines: FakeEngines
) -> None:
    options = ["--model", "m/n", "--cutoff-layers", "8,16", "--compress-ratio", "2"]
    options += ["--instruction", "Is it so?", "--long-documents", "window", "--device", "cpu,cpu"]
    assert serve(*options, "--max-document-tokens", "100").exit_code == 0
    assert asked_by(started[0], engines) == (
        EngineConfig("m/n", device=("cpu", "cpu"), cutoff_layers=(8, 16), compress_ratio=2),
        CallOptions(
            long_documents="window",
            instruction="Is it so?",
            max_document_tokens=100,
            # a server's own default
            max_wait_s=5.0,
        ),
    )


def test_garbage_collection_leaves_out_what_a_model_has_loaded(
    serve: Serve, started: list[uvicorn.Config], engines: FakeEngines
) -> None:
    assert serve("--model", "m/n").exit_code == 0
    # what conftest.py has frozen, and will be again
    gc.unfreeze()
    asyncio.run(application_of(started[0]).state.service.start())
    assert engines.asked is not None
    assert gc.get_freeze_count() > 10_000


def test_several_models_are_loaded_once_each(
    serve: Serve, started: list[uvicorn.Config], engines: FakeEngines
) -> None:
    models = ["a/b", "mine=c", "rerank-v3.5=a/b"]
    assert serve(*(f"--model={model}" for model in models), "--max-length=64").exit_code == 0
    service = application_of(started[0]).state.service
    assert [model.names for model in service.models] == [("a/b", "rerank-v3.5"), ("mine",)]
    asyncio.run(service.start())
    assert engines.models == ["a/b", "c"]
    assert engines.asked == (EngineConfig("c"), CallOptions(max_length=64, max_wait_s=5.0))
    result = serve("--model", "a=b", "--model", "a=c")
    assert (result.exit_code, len(started)) == (2, 1)
    assert result.stderr.startswith("error: two models are called a: b and c")


@pytest.mark.parametrize(("given", "seconds"), [("2.5", 2.5), ("inf", math.inf), ("none", None)])
def test_the_wait_is_bounded_as_asked(
    serve: Serve,
    started: list[uvicorn.Config],
    engines: FakeEngines,
    given: str,
    seconds: float | None,
) -> None:
    assert serve("--max-wait-s", given).exit_code == 0
    assert asked_by(started[0], engines)[1].max_wait_s == seconds


def test_the_environment_has_what_the_command_line_leaves_out(
    serve: Serve, started: list[uvicorn.Config], engines: FakeEngines
) -> None:
    environment = {"BGE_RERANK_MAX_LENGTH": "64", "BGE_RERANK_DTYPE": "float16"}
    environment |= {"BGE_RERANK_MODEL": "m/n", "BGE_RERANK_HOST": "::1", "BGE_RERANK_PORT": "99"}
    assert serve("--dtype", "float32", env=environment).exit_code == 0
    expected = (EngineConfig("m/n", dtype="float32"), CallOptions(max_length=64, max_wait_s=5.0))
    assert asked_by(started[0], engines) == expected
    assert (started[0].host, started[0].port) == ("::1", 99)
    result = serve(env={"BGE_RERANK_MAX_LENGTH": "two"})
    assert (result.exit_code, len(started)) == (2, 1)
    expected = "error: max_length must be None or an int of at least 16, got 'two'"
    assert result.stderr.startswith(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-length", "64", "--query-max-length", "64"], "query_max_length must be less than"),
        (["--instruction", ""], "instruction must be None or a non-empty string, got ''"),
    ],
)
def test_settings_that_cannot_work_start_no_server(
    serve: Serve, started: list[uvicorn.Config], options: list[str], message: str
) -> None:
    result = serve(*options)
    assert (result.exit_code, started) == (2, [])
    assert result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "2001:db8::1", "example.org"])
def test_a_public_address_needs_a_key_or_the_word_that_none_is_wanted(
    serve: Serve, started: list[uvicorn.Config], host: str
) -> None:
    result = serve("--host", host)
    assert (result.exit_code, started) == (2, [])
    assert result.stderr.startswith(f"error: {host} may be reached by others: set BGE_RERANK_API_")
    result = serve("--host", host, "--no-api-key")
    assert (result.exit_code, result.output) == (0, "")
    assert [config.host for config in started] == [host]


@pytest.mark.parametrize("host", [None, "127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(
    serve: Serve, started: list[uvicorn.Config], host: str | None
) -> None:
    result = serve(*([] if host is None else ["--host", host]))
    assert (result.exit_code, result.output) == (0, "")
    assert [config.host for config in started] == [host or "127.0.0.1"]


def test_idle_connections_are_kept_for_75_seconds_or_as_told(
    serve: Serve, started: list[uvicorn.Config]
) -> None:
    serve()
    serve("--keep-alive-s", "7")
    assert [config.timeout_keep_alive for config in started] == [75, 7]
    assert serve("--keep-alive-s", "0").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ([], ("localhost",)),
        (["--host", "::1"], ("localhost",)),
        (["--allowed-host", "a.example", "--allowed-host", "b"], ("a.example", "b")),
        (["--host", "0.0.0.0", "--no-api-key"], ()),
        (["--host", "0.0.0.0", "--no-api-key", "--allowed-host", "a"], ("a",)),
    ],
)
def test_a_server_of_this_machine_is_named_localhost(
    serve: Serve, started: list[uvicorn.Config], arguments: list[str], allowed: tuple[str, ...]
) -> None:
    assert serve(*arguments).exit_code == 0
    assert settings_of(started[0]).allowed_hosts == allowed


def settings_of(config: uvicorn.Config) -> ServerSettings:
    settings: ServerSettings = application_of(config).state.service.settings
    return settings


def test_a_key_comes_from_the_command_line_the_environment_or_a_file(
    serve: Serve, started: list[uvicorn.Config], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(" old\n\nnew,key \n")
    set_in_environment = {"BGE_RERANK_API_KEY": " a,key\n"}
    for arguments, environment, keys in (
        (["--api-key", "k"], set_in_environment, ("k",)),
        ([], set_in_environment, ("a,key",)),
        (["--api-key-file", str(file)], set_in_environment, ("old", "new,key")),
        ([], {"BGE_RERANK_API_KEY_FILE": str(file)}, ("old", "new,key")),
    ):
        result = serve("--host", "0.0.0.0", *arguments, env=environment)
        assert (result.exit_code, result.output) == (0, "")
        assert settings_of(started[-1]).api_keys == keys


@pytest.mark.parametrize("key", ["", " \n"])
def test_an_empty_key_is_an_error(serve: Serve, started: list[uvicorn.Config], key: str) -> None:
    for result in (serve(env={"BGE_RERANK_API_KEY": key}), serve("--api-key", key)):
        assert (result.exit_code, started) == (2, [])
        assert "is empty" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--api-key-file", "none"], "the API keys in none cannot be read"),
        (["--api-key-file", "/dev/null"], "/dev/null holds no API key"),
        (["--api-key-file", "none", "--api-key", "k"], "not both"),
        (["--api-key", "k", "--no-api-key"], "--no-api-key was given, and a key too"),
        (["--api-key", "a secret"], "api_keys must be a tuple of printable ASCII without spaces"),
    ],
)
def test_keys_that_cannot_work_are_errors(
    serve: Serve, started: list[uvicorn.Config], arguments: list[str], message: str
) -> None:
    result = serve(*arguments)
    assert (result.exit_code, started) == (2, [])
    assert message in result.stderr
    assert "secret" not in result.stderr


def test_the_log_is_as_loud_and_as_structured_as_told(serve: Serve) -> None:
    own = logging.getLogger("bge_rerank_integrations")
    for arguments, environment, level, formatter in (
        ([], {}, logging.INFO, "_TextFormatter"),
        (["--log-level", "error"], {}, logging.ERROR, "_TextFormatter"),
        (["--log-format", "json"], {"BGE_RERANK_LOG_LEVEL": "debug"}, 10, "JsonFormatter"),
    ):
        assert serve(*arguments, env=environment).exit_code == 0
        (handler,) = logging.getLogger().handlers
        assert (own.level, type(handler.formatter).__name__) == (level, formatter)
    assert serve("--log-level", "loud").exit_code == 2
    assert serve("--log-format", "xml").exit_code == 2


def test_traces_are_sent_if_told(
    serve: Serve,
    started: list[uvicorn.Config],
    engines: FakeEngines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for arguments, environment in (
        ([], {}),
        (["--otel"], {}),
        ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}),
    ):
        assert serve(*arguments, env=environment).exit_code == 0
    traced = [
        any(each.cls is OpenTelemetryMiddleware for each in application_of(config).user_middleware)
        for config in started
    ]
    assert traced == [False, True, True]
    for config in started:
        # ends what sends the spans
        asked_by(config, engines)


SAMPLES: dict[str, tuple[str, object]] = {
    "model": ("m/n", "m/n"),
    "revision": ("main", "main"),
    "recipe": ("qwen3-reranker", "qwen3-reranker"),
    "device": ("cpu,cpu", ("cpu", "cpu")),
    "dtype": ("float16", "float16"),
    "max_length": ("64", 64),
    "cutoff_layers": ("8,16", (8, 16)),
    "compress_ratio": ("2", 2),
    "compress_layers": ("4", (4,)),
    "cache_folder": ("/cache", "/cache"),
    "local_files_only": ("true", True),
    "long_documents": ("window", "window"),
    "instruction": ("Is it so?", "Is it so?"),
    "calibration": ("c.json", "c.json"),
    "queue_timeout_s": ("1.5", 1.5),
    "api_keys": ("key", ("key",)),
    "allowed_hosts": ("a.example", ("a.example",)),
    "cors_origins": ("https://a.example", ("https://a.example",)),
    "root_path": ("/search", "/search"),
}
# options that hold one of a setting's several values
OPTIONS = {
    "api_keys": "api_key",
    "allowed_hosts": "allowed_host",
    "cors_origins": "cors_origin",
}


def setting_of(config: uvicorn.Config, engines: FakeEngines, name: str) -> object:
    """What a setting is in a server, or in the engine that it asks for."""
    if name in {each.name for each in fields(ServerSettings)}:
        return getattr(settings_of(config), name)
    engines.asked = None
    loaded, called = asked_by(config, engines)
    return getattr(loaded if hasattr(loaded, name) else called, name)


@pytest.mark.parametrize(
    ("has_options", "has_variables"), [(True, None), (False, True), (True, False)]
)
def test_every_setting_is_an_option_and_a_variable(
    serve: Serve,
    started: list[uvicorn.Config],
    engines: FakeEngines,
    has_options: bool,
    has_variables: bool | None,
) -> None:
    """The options win over the variables, even if those are wrong."""
    names = [each for each in SETTINGS if each not in NOT_SERVED]
    names += [each.name for each in fields(ServerSettings) if each.name not in names]
    samples = {name: SAMPLES.get(name, ("17", 17)) for name in names}
    arguments, environment = [], {}
    for name, (text, _) in samples.items():
        option = OPTIONS.get(name, name)
        if has_options:
            arguments += [f"--{option.replace('_', '-')}", text]
        if has_variables is not None:
            environment[f"BGE_RERANK_{option.upper()}"] = text if has_variables else "wrong"
    result = serve(*arguments, env=environment)
    assert (result.exit_code, result.output) == (0, "")
    assert {name: setting_of(started[-1], engines, name) for name in names} == {
        name: value for name, (_, value) in samples.items()
    }


def test_several_values_of_a_variable_have_spaces_between(
    serve: Serve, started: list[uvicorn.Config]
) -> None:
    environment = {"BGE_RERANK_MODEL": "a/b mine=c", "BGE_RERANK_ALLOWED_HOST": "a.example b"}
    assert serve(env=environment | {"BGE_RERANK_PORT": "9"}).exit_code == 0
    service = application_of(started[0]).state.service
    assert [model.names for model in service.models] == [("a/b",), ("mine",)]
    assert (settings_of(started[0]).allowed_hosts, started[0].port) == (("a.example", "b"), 9)
