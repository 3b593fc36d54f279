"""``bge-rerank serve``: engines for many processes, over HTTP."""

from __future__ import annotations

import gc
import inspect
import ipaddress
import logging
import os
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..errors import ConfigurationError, MissingExtraError
from ..serving.settings import (
    NOT_SERVED,
    SERVED_DEFAULTS,
    LogFormat,
    LogLevel,
    ServerSettings,
    read_api_keys,
)
from ..setting_types import API_KEY_VARIABLE
from ..settings import BUILT_IN_MODEL, description_of, split_settings
from .options import ACCESS, LIMITS, LOG, model_names, with_settings

if TYPE_CHECKING:
    from .. import RerankEngine

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8787
# the exit code of shells for SIGINT
_INTERRUPTED = 130


_TYPES = get_type_hints(ServerSettings)
# an option for every setting of a server that has a help text
_LIMITS = [
    inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=each.default,
        annotation=Annotated[
            _TYPES[each.name], typer.Option(help=each.metadata["help"], rich_help_panel=LIMITS)
        ],
    )
    for each in fields(ServerSettings)
    if each.metadata
]


@with_settings(but=NOT_SERVED, variables=True, defaults=SERVED_DEFAULTS, more=_LIMITS)
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{description_of('model')} May be repeated; requests choose one by its name, and "
            "get the first if they name none. NAME=ID gives a name of your own, so that clients "
            "with a fixed one are answered.",
            show_default=BUILT_IN_MODEL,
            autocompletion=model_names,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine reaches the default.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65_535, metavar="INTEGER", help="Port to listen on; 0 takes a free one."
        ),
    ] = DEFAULT_PORT,
    ssl_certfile: Annotated[
        Path | None,
        typer.Option(
            help="Certificate (PEM) for HTTPS.", show_default="none: HTTP", rich_help_panel=ACCESS
        ),
    ] = None,
    ssl_keyfile: Annotated[
        Path | None,
        typer.Option(
            help="The certificate's key (PEM), if it has a file of its own.",
            show_default="none",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    ssl_keyfile_password: Annotated[
        str | None,
        typer.Option(help="Opens the key; better given in its variable.", rich_help_panel=ACCESS),
    ] = None,
    forwarded_allow_ips: Annotated[
        str,
        typer.Option(
            help="Proxies, with commas between, whose X-Forwarded-For and -Proto are believed; "
            "* for all.",
            rich_help_panel=ACCESS,
        ),
    ] = "127.0.0.1",
    api_key: Annotated[
        str | None,
        typer.Option(
            help=f"Require this API key of every request. Prefer a file or {API_KEY_VARIABLE}: all "
            "users of a machine can see a command line.",
            show_default="none",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File of API keys, one a line; every request must carry one of them.",
            show_default="none",
        ),
    ] = None,
    no_api_key: Annotated[
        bool,
        typer.Option("--no-api-key", help="Let others than this machine's users in without a key."),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name of this server, may be repeated; requests for other names than these "
            "and localhost are refused.",
            show_default="any, but only localhost on a loopback address",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin whose pages may read this server's answers, such as https://app.example, "
            "or * for all; may be repeated.",
            show_default="none",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="What is logged, to stderr.", rich_help_panel=LOG)
    ] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat,
        typer.Option(help="Lines of text, or of JSON.", rich_help_panel=LOG),
    ] = LogFormat.TEXT,
    otel: Annotated[
        bool,
        typer.Option(
            "--otel",
            help="Send OpenTelemetry traces; so do the standard variables OTEL_TRACES_EXPORTER and "
            "OTEL_EXPORTER_OTLP_ENDPOINT.",
            rich_help_panel=LOG,
        ),
    ] = False,
    **settings: Any,
) -> None:
    """Serve a reranker over HTTP, with the APIs of Cohere, Jina, TEI, vLLM and others.

    Every option may be a variable: BGE_RERANK_PORT=8080 is --port 8080.

    After SIGTERM or SIGHUP, requests in progress finish first.
    """
    try:
        from ..serving.app import create_app
        from ..serving.http_server import configure_logging, make_server
        from ..serving.metrics import start_tracing
        from ..serving.models import is_loading, read_models
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "pythonjsonlogger"):
            raise
        raise MissingExtraError("serve") from error

    limits = ServerSettings(
        api_keys=_keys(host, api_key, api_key_file, no_api_key=no_api_key),
        # a page of the web cannot have the name localhost, see access_error
        allowed_hosts=tuple(allowed_host or (["localhost"] if _is_loopback(host) else [])),
        cors_origins=tuple(cors_origin or []),
        **{limit.name: settings.pop(limit.name) for limit in _LIMITS},
    )
    models = read_models(model or [BUILT_IN_MODEL])
    # now, so that an invalid setting is refused before the server starts
    for each in models.values():
        split_settings(each, settings)
    # one function for each model, however many names it has
    loads = {each: partial(_load, each, settings) for each in models.values()}

    configure_logging(log_format, log_level)
    failures: list[Exception] = []

    def give_up(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    def announce() -> None:
        if not server.started:
            return
        for each in app.state.service.models:
            stats = each.engine.stats()
            logger.info("loaded %s on %s in %s", ", ".join(each.names), stats.device, stats.dtype)
        logger.info("ready: open %s (the paths: %sdocs)", server.url, server.url)

    app = create_app(
        {name: loads[each] for name, each in models.items()},
        limits,
        on_load_error=give_up,
        on_ready=announce,
        tracer_provider=start_tracing(wanted=otel),
    )
    server = make_server(
        app,
        limits,
        host=host,
        port=port,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        ssl_keyfile_password=ssl_keyfile_password,
        forwarded_allow_ips=forwarded_allow_ips,
    )
    try:
        server.run()
    finally:
        if is_loading():
            # Python would tear down what the thread is using, and abort
            logging.shutdown()
            os._exit(_INTERRUPTED)
    if failures:
        raise failures[0]


def _load(model: str, settings: dict[str, Any]) -> RerankEngine:
    # imported here: torch takes seconds, and meanwhile the server reports that it is loading
    from .. import RerankEngine

    engine = RerankEngine.shared(model, **settings)
    # to look through the objects of torch at every full collection takes 0.3 s, in which no
    # request is answered
    gc.collect()
    gc.freeze()
    return engine


def _keys(host: str, key: str | None, file: Path | None, *, no_api_key: bool) -> tuple[str, ...]:
    keys = read_api_keys(key, file)
    if keys and no_api_key:
        raise ConfigurationError("--no-api-key was given, and a key too")
    if not keys and not no_api_key and not _is_loopback(host):
        raise ConfigurationError(
            f"{host} may be reached by others: set {API_KEY_VARIABLE} or --api-key-file, "
            "or let everybody in with --no-api-key"
        )
    return keys


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
