"""Several models in one server: which one answers, and what the server says of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from processes import run

from bge_rerank_integrations import ConfigurationError, ModelLoadError
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.models import read_models
from bge_rerank_integrations.serving.settings import read_api_keys
from serving.conftest import Serve
from serving.fake_engine import FakeEngine
from serving.test_errors import BODIES, message_of

M3 = "BAAI/bge-reranker-v2-m3"
BODY = {"query": "a", "documents": ["a", "b"]}
# those whose body has a field for it
WITH_A_MODEL = [
    path
    for path in BODIES
    if path not in ("/tei/rerank", "/weaviate/rerank") and not {"fake", "run"} & {*path.split("/")}
]


def several() -> dict[str, FakeEngine]:
    """Two engines, one of which has two names."""
    m3, tuned = FakeEngine(model=M3), FakeEngine(model="/srv/models/tuned")
    return {M3: m3, "rerank-v3.5": m3, "mine": tuned}


def three() -> dict[str, FakeEngine]:
    """Engines of which one has the name that some paths have in them."""
    return {name: FakeEngine() for name in ("first", "fake", "last")}


Engines = Callable[[], dict[str, FakeEngine]]


@cache
def server_of(engines: Engines) -> tuple[dict[str, FakeEngine], FastAPI]:
    """One server for all tests with these engines."""
    made = engines()
    return made, create_app(made)  # type: ignore[arg-type]


@asynccontextmanager
async def client_of(
    engines: Engines,
) -> AsyncIterator[tuple[dict[str, FakeEngine], httpx.AsyncClient]]:
    """The engines, which nobody has called, and a client of their server."""
    made, app = server_of(engines)
    for engine in made.values():
        engine.calls.clear()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield made, client


@pytest.mark.parametrize("path", WITH_A_MODEL)
async def test_a_request_chooses_its_model(path: str) -> None:
    async with client_of(several) as (engines, client):
        for name, answers in (
            (None, M3),
            ("", M3),
            (M3, M3),
            ("bge-reranker-v2-m3", M3),
            ("baai-bge-reranker-v2-m3", M3),
            ("rerank-v3.5", M3),
            ("mine", "mine"),
            ("/srv/models/tuned", "mine"),
            ("tuned", "mine"),
        ):
            response = await client.post(path, json=BODIES[path] | {"model": name})
            assert response.status_code == 200
            assert response.json().get("model", answers) == answers
            called = [name for name, engine in engines.items() if engine.calls]
            assert called == ([M3, "rerank-v3.5"] if answers == M3 else ["mine"])
            for engine in engines.values():
                engine.calls.clear()


@pytest.mark.parametrize("path", BODIES)
async def test_a_request_without_a_name_gets_the_first_model(path: str) -> None:
    asked = "fake" if "fake" in path.split("/") else "first"
    async with client_of(three) as (engines, client):
        assert (await client.post(path, json=BODIES[path])).status_code == 200
    assert [name for name, engine in engines.items() if engine.calls] == [asked]


@pytest.mark.parametrize("path", [*WITH_A_MODEL, "/azion/ai/run/other"])
async def test_an_unknown_name_is_refused_with_the_names_that_there_are(path: str) -> None:
    async with client_of(several) as (engines, client):
        for name in ("other", "MINE", "tuned/mine", "srv"):
            response = await client.post(path, json=BODIES.get(path, BODY) | {"model": name})
            assert response.status_code == 404
            assert f"the models are {M3}, rerank-v3.5, mine" in message_of(path, response)
    assert not any(engine.calls for engine in engines.values())


async def test_one_engine_is_not_another_either(serve: Serve) -> None:
    async with serve(FakeEngine(model=M3)) as client:
        for name, status in ((M3, 200), ("bge-reranker-v2-m3", 200), ("rerank-v3.5", 404)):
            response = await client.post("/rerank", json=BODY | {"model": name})
            assert response.status_code == status


async def test_a_short_name_of_two_models_is_none(serve: Serve) -> None:
    engines = {"a/same": FakeEngine(model="x"), "b/same": FakeEngine(model="x")}
    async with serve(engines) as client:
        for name, status in (("a/same", 200), ("same", 404), ("x", 404)):
            response = await client.post("/rerank", json=BODY | {"model": name})
            assert response.status_code == status


async def test_a_given_name_goes_before_a_short_one(serve: Serve) -> None:
    engines = {"a/same": FakeEngine(), "same": FakeEngine()}
    async with serve(engines) as client:
        await client.post("/rerank", json=BODY | {"model": "same"})
    assert [len(engine.calls) for engine in engines.values()] == [0, 1]


async def test_a_server_is_ready_with_its_last_model() -> None:
    loaded = threading.Event()
    first, second = FakeEngine(model="first"), FakeEngine(model="hub/second")

    def load_second() -> FakeEngine:
        assert loaded.wait(20)
        return second

    app = create_app({"first": lambda: first, "2": load_second})  # type: ignore[dict-item]
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        while (await client.post("/rerank", json=BODY)).status_code != 200:
            await asyncio.sleep(0.005)
        assert (await client.get("/ready")).status_code == 503
        # it may be the name of what is being loaded
        for name in ("2", "second", "unknown"):
            response = await client.post("/rerank", json=BODY | {"model": name})
            assert response.status_code == 503
        assert (
            'bge_rerank_engine_tokens_total{model="2"}' not in (await client.get("/metrics")).text
        )
        loaded.set()
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.005)
        response = await client.post("/rerank", json=BODY | {"model": "second"})
        assert (response.status_code, len(second.calls)) == (200, 1)
        response = await client.post("/rerank", json=BODY | {"model": "unknown"})
        assert response.status_code == 404


async def test_one_dead_model_is_a_failed_server(serve: Serve) -> None:
    engines = several()
    async with serve(engines) as client:
        assert (await client.get("/health")).status_code == 200
        engines["mine"].is_alive = False
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/ready")).status_code == 503


async def test_a_model_that_cannot_be_loaded_leaves_the_others_answering() -> None:
    def load() -> Any:
        raise ModelLoadError("there is none")

    app = create_app({"broken": load, "fake": FakeEngine})  # type: ignore[dict-item]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://server"
    ) as client:
        await app.state.service.start()
        assert (await client.get("/health")).status_code == 503
        response = await client.post("/rerank", json=BODY | {"model": "fake"})
        assert response.status_code == 200
        assert (await client.post("/rerank", json=BODY)).status_code == 503


async def test_no_model_is_begun_after_one_that_ends_the_process() -> None:
    def load() -> Any:
        raise ModelLoadError("there is none")

    errors: list[Exception] = []
    begun: list[str] = []

    def other() -> Any:
        begun.append("other")
        return FakeEngine()

    app = create_app({"broken": load, "other": other}, on_load_error=errors.append)
    await app.state.service.start()
    assert len(errors) == 1
    assert not begun


async def test_metrics_and_info_tell_the_models_apart(serve: Serve) -> None:
    engines = several()
    engines["mine"].max_length = 256
    async with serve(engines) as client:
        text = (await client.get("/metrics")).text
        assert f'bge_rerank_engine_queued_pairs{{model="{M3}"}} 0.0' in text
        assert 'bge_rerank_engine_tokens_total{model="mine"} 0.0' in text
        # a second name is no second engine
        assert "rerank-v3.5" not in text
        info = (await client.get("/info")).json()
    assert (info["model_id"], info["max_input_length"]) == (M3, 512)
    assert [(it["model_id"], it["max_input_length"]) for it in info["models"]] == [
        (M3, 512),
        ("mine", 256),
    ]


@pytest.mark.parametrize("engines", [{}, {"": FakeEngine()}, {" ": FakeEngine()}])
def test_a_server_needs_engines_with_names(engines: Any) -> None:
    with pytest.raises(ConfigurationError, match="engines must be"):
        create_app(engines)


@pytest.mark.parametrize(
    ("texts", "models"),
    [
        (["tiny"], {"tiny": "tiny"}),
        ([M3, f"rerank-v3.5={M3}"], {M3: M3, "rerank-v3.5": M3}),
        ([" a = b ", "a=b"], {"a": "b"}),
        (["owner/a=/data/run=3/model"], {"owner/a": "/data/run=3/model"}),
    ],
)
def test_models_are_read_from_a_command_line(texts: list[str], models: dict[str, str]) -> None:
    assert list(read_models(texts).items()) == list(models.items())


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "model must be ID or NAME=ID"),
        ([""], "got ''"),
        (["=a"], "got '=a'"),
        (["a="], "got 'a='"),
        (["a=b", "a=c"], "two models are called a: b and c"),
        (["a", "a=c"], "two models are called a: a and c"),
    ],
)
def test_models_that_cannot_be_told_apart_are_errors(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_models(texts)


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
async def test_the_names_are_listed_as_openais_are(serve: Serve, path: str) -> None:
    async with serve(several()) as client:
        answer = (await client.get(path)).json()
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == [M3, "rerank-v3.5", "mine"]
    for model in answer["data"]:
        assert (model["object"], model["owned_by"]) == ("model", "bge-rerank")
        assert model["created"] > 1.7e9


@pytest.mark.enable_socket
def test_one_of_several_models_that_cannot_be_loaded_ends_the_process_with_1() -> None:
    main = "from bge_rerank_integrations.cli import main; main()"
    arguments = ["serve", "--port", "0", "--model", "a=/nope/x", "--model", "b=tiny"]
    for _ in range(3):
        done = run(main, *arguments)
        assert done.returncode == 1, done.stderr
        assert "there is no model folder" in done.stderr
        assert "terminate called" not in done.stderr


def test_a_file_of_keys_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two\r\n")
    assert read_api_keys(file=file) == ("one", "two")


@pytest.mark.parametrize("line", ["# the keys of production", "two words", "kéy"])
def test_a_line_that_is_no_key_is_named_without_its_text(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"one\n\n{line}\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"keys, line 3: a key is printable ASCII") as told:
        read_api_keys(file=file)
    assert line not in str(told.value)
