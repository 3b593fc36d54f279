"""The HTTP application around engines: dialects, health, metrics and the playground."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from bge_rerank_integrations.errors import MissingExtraError

try:
    import prometheus_client  # noqa: F401  # the other half of the extra
    from fastapi import FastAPI, Response
except ModuleNotFoundError as error:
    if error.name in ("fastapi", "prometheus_client"):
        raise MissingExtraError("serve") from error
    raise

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from bge_rerank_integrations import __version__
from bge_rerank_integrations.serving.access_log import AccessLogMiddleware
from bge_rerank_integrations.serving.answers import error_response
from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.endpoints import add_endpoint, add_request_schemas
from bge_rerank_integrations.serving.error_handlers import add_error_handlers
from bge_rerank_integrations.serving.health import add_health_routes
from bge_rerank_integrations.serving.metrics import Metrics, MetricsMiddleware
from bge_rerank_integrations.serving.middleware import (
    BodyMiddleware,
    HostMiddleware,
    KeyMiddleware,
)
from bge_rerank_integrations.serving.playground import add_playground
from bge_rerank_integrations.serving.routes import ROUTES, HeadMiddleware, PathMiddleware, wire_at
from bge_rerank_integrations.serving.service import RerankService
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.serving.tracing import tracing_middleware
from bge_rerank_integrations.wire import Wire

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from bge_rerank_integrations.serving.models import EngineSource


def create_app(
    engine: EngineSource | Mapping[str, EngineSource],
    settings: ServerSettings | None = None,
    *,
    on_load_error: Callable[[Exception], None] | None = None,
    tracer_provider: TracerProvider | None = None,
) -> FastAPI:
    """Make the application.

    :param engine: an engine, or a function that makes one; or several of them by name. Functions
        are called in a thread at startup, one after the other; until all have returned, the server
        is not ready. Requests choose an engine by its name, which they call ``model``; the first
        one answers those that name none. An engine under several names has them all.
    :param settings: limits, keys and deadline; None means the defaults.
    :param on_load_error: called on the event loop if an engine cannot be made.
    :param tracer_provider: sends a span of each request; it is shut down with the application.
    :raises ConfigurationError: if there is no engine, or one without a name.
    :raises MissingExtraError: if the extra ``serve`` is not installed.
    """
    settings = settings or ServerSettings()
    service = RerankService(engine, settings, on_load_error, tracer_provider)
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
        Middleware(AccessLogMiddleware),
        Middleware(MetricsMiddleware, metrics=metrics),
        Middleware(
            BodyMiddleware,
            max_bytes=settings.max_body_bytes,
            max_total_bytes=settings.max_total_body_bytes,
            timeout_s=settings.body_timeout_s,
            refuse=refuse,
        ),
        Middleware(HeadMiddleware),
    ]
    if settings.api_keys:
        middleware.insert(2, Middleware(KeyMiddleware, keys=settings.api_keys, refuse=refuse))
    if settings.allowed_hosts:
        hosts = Middleware(HostMiddleware, allowed=settings.allowed_hosts, refuse=refuse)
        middleware.insert(2, hosts)
    if settings.cors_origins:
        # before the key: a browser asks without one whether it may send one
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-ID", "X-Truncated-Documents"],
        )
        middleware.insert(2, cors)
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
        # these pages load scripts from other hosts
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.on_malformed = metrics.errors.labels(ErrorKind.MALFORMED.value).inc
    for route in ROUTES:
        add_endpoint(app, service, metrics, route)
    add_health_routes(app, service, metrics)
    add_error_handlers(app, respond)
    add_playground(app)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        return add_request_schemas(described(), ROUTES)

    app.openapi = openapi  # type: ignore[method-assign]
    return app
