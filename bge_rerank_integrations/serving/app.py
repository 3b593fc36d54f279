"""The HTTP application around engines: services, health, metrics and the playground."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError, RerankError

try:
    import prometheus_client  # noqa: F401  # the other half of the extra
    from fastapi import FastAPI, Request, Response
except ModuleNotFoundError as error:
    if error.name in ("fastapi", "prometheus_client"):
        raise MissingExtraError("serve") from error
    raise

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from .. import __version__
from ..wire import Wire
from .answers import error_response
from .api_errors import ApiError, ErrorKind, RefusedError, from_rerank_error
from .endpoints import add_endpoint, add_request_schemas
from .health import add_health_routes
from .metrics import Metrics, RequestMiddleware, tracing_middleware
from .middleware import HeadCheckMiddleware
from .routes import (
    REQUEST_ID_HEADER,
    ROUTES,
    HeadMiddleware,
    PathMiddleware,
    current_request,
    wire_at,
)
from .service import RerankService
from .settings import ServerSettings
from .shedding import Shedding

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from .models import EngineSource

_KIND_OF_STATUS = {
    400: ErrorKind.MALFORMED,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.NOT_ALLOWED,
    408: ErrorKind.SLOW,
    413: ErrorKind.TOO_LARGE,
    503: ErrorKind.UNAVAILABLE,
}
_SCRIPTS = ("texts.js", "requests.js", "results.js", "share.js", "start.js")


def create_app(
    engine: EngineSource | Mapping[str, EngineSource],
    settings: ServerSettings | None = None,
    *,
    on_load_error: Callable[[Exception], None] | None = None,
    on_ready: Callable[[], None] | None = None,
    tracer_provider: TracerProvider | None = None,
) -> FastAPI:
    """Make the application.

    :param engine: an engine, or a function that makes one; or several of them by name. Functions
        are called in a thread at startup, one after the other; until all have returned, the server
        is not ready. Requests choose an engine by its name, which they call ``model``; the first
        one answers those that name none. An engine under several names has them all.
    :param settings: limits, keys and deadline; None means the defaults.
    :param on_load_error: called on the event loop if an engine cannot be made.
    :param on_ready: called on the event loop when all engines are loaded.
    :param tracer_provider: sends a span of each request; it is shut down with the application.
    :raises ConfigurationError: if there is no engine, or one without a name.
    :raises MissingExtraError: if the extra ``serve`` is not installed.
    """
    settings = settings or ServerSettings()
    service = RerankService(engine, settings, on_load_error, on_ready, tracer_provider)
    metrics = Metrics(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        yield
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        if tracer_provider is not None:
            # sends what has not been sent
            await asyncio.to_thread(tracer_provider.shutdown)

    def respond(wire: Wire, error: ApiError) -> Response:
        metrics.errors.labels(error.kind.value).inc()
        return error_response(wire, error, settings.retry_after_s)

    def refuse(scope: Scope, error: ApiError) -> Response:
        return respond(wire_at(scope), error)

    middleware = [
        Middleware(RequestMiddleware, metrics=metrics),
        Middleware(HeadCheckMiddleware, settings=settings, refuse=refuse),
        Middleware(HeadMiddleware),
    ]
    if settings.cors_origins:
        # before the key: a browser asks without one whether it may send one
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-ID", "X-Truncated-Documents"],
        )
        middleware.insert(1, cors)
    if tracer_provider is not None:
        middleware.insert(0, tracing_middleware(tracer_provider))
    middleware.insert(0, Middleware(PathMiddleware, root_path=settings.root_path, refuse=refuse))
    app = FastAPI(
        title="bge-rerank",
        summary="Rerank documents with a BGE cross-encoder, through the APIs of several services.",
        version=__version__,
        lifespan=lifespan,
        middleware=middleware,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        # these pages load scripts from other hosts; /docs is a page of our own
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    shedding = Shedding(settings, metrics)
    # what connections tell and ask
    app.state.connections = {
        "on_malformed": metrics.errors.labels(ErrorKind.MALFORMED.value).inc,
        "refuse": shedding.refuse,
    }
    for route in ROUTES:
        add_endpoint(app, service, metrics, shedding, route)
    add_health_routes(app, service, metrics)
    _add_error_handlers(app, respond)
    _add_pages(app)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        return add_request_schemas(described(), ROUTES)

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _add_error_handlers(app: FastAPI, make: Callable[[Wire, ApiError], Response]) -> None:
    """Handle errors of the engine and of this server.

    :param make: service and error → response.
    """

    def respond(request: Request, error: ApiError) -> Response:
        # set once the body has been read
        wire: Wire | None = getattr(request.state, "wire", None)
        return make(wire or wire_at(request.scope), error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        kind = _KIND_OF_STATUS.get(error.status_code, ErrorKind.INTERNAL)
        response = respond(request, ApiError(kind, error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return respond(request, error.api_error)

    @app.exception_handler(RerankError)
    async def failed(request: Request, error: RerankError) -> Response:
        return respond(request, from_rerank_error(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        error = ApiError(ErrorKind.INTERNAL, "the server failed on this request")
        response = respond(request, error)
        # Starlette answers these outside of all middleware
        record = current_request()
        if record is not None:
            response.headers[REQUEST_ID_HEADER] = record.id
        return response


def _add_pages(app: FastAPI) -> None:
    """Serve the playground at ``/``, which asks this server only, and the list of paths."""
    style = _read("style.css")
    script = "".join(_read(name) for name in _SCRIPTS)
    # one response: the page works below any path, and needs no cache of its own
    page = _read("page.html").replace("<style></style>", f"<style>{style}</style>")
    page = page.replace("<script></script>", f"<script>{script}</script>")
    headers = {
        # only the page's own script and style, and requests to its own server
        "Content-Security-Policy": (
            f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        # the page belongs to this version of the server
        "Cache-Control": "no-store",
    }

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return Response(page, headers=headers, media_type="text/html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(_paths_page(app.openapi(), style), headers=headers, media_type="text/html")


def _paths_page(described: Mapping[str, Any], style: str) -> str:
    """The paths of an OpenAPI document, as a page without scripts.

    FastAPI's own page loads its scripts from another host.
    """
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation.get('description') or operation.get('summary', ''))}</td></tr>"
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>bge-rerank paths</title>'
        f"<style>{style}</style><main><h1>Paths of this server</h1><p>Bodies, answers and errors "
        f'are described in <a href="openapi.json">openapi.json</a>, which Postman, Insomnia and '
        f'Swagger UI read; <a href=".">the playground</a> asks by hand.</p>'
        f"<table>{rows}</table></main></html>"
    )


def _read(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _digest(block: str) -> str:
    digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    return f"'sha256-{digest}'"
