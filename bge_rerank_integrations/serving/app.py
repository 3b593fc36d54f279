"""The HTTP application: dialects, health, figures and the page, around one engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Union

from bge_rerank_integrations.errors import MissingExtraError, RerankError

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from prometheus_client import CONTENT_TYPE_LATEST
except ModuleNotFoundError as error:
    if error.name in ("fastapi", "prometheus_client"):
        raise MissingExtraError("serve") from error
    raise

from pydantic import BaseModel, Discriminator, Tag
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from bge_rerank_integrations import __version__
from bge_rerank_integrations.serving.dialects.base import Dialect
from bge_rerank_integrations.serving.metrics import Metrics, MetricsMiddleware
from bge_rerank_integrations.serving.middleware import BodyMiddleware, KeyMiddleware
from bge_rerank_integrations.serving.playground import add_playground
from bge_rerank_integrations.serving.problems import RETRY_LATER, Kind, Problem, problem_of
from bge_rerank_integrations.serving.requests import (
    FORM_TAGS,
    ClientGoneError,
    validation_problem,
    while_connected,
)
from bge_rerank_integrations.serving.routes import ROUTES, Route, dialect_at
from bge_rerank_integrations.serving.served import ServedEngine
from bge_rerank_integrations.serving.service import RefusedError, RerankService
from bge_rerank_integrations.serving.settings import ServerSettings

_KIND_OF_STATUS = {
    400: Kind.MALFORMED,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_ALLOWED,
    413: Kind.TOO_LARGE,
}
_UNREADABLE = "the body is not JSON in UTF-8, is nested too deeply or holds too long a number"
_DOCUMENTED = (
    Kind.MALFORMED,
    Kind.INVALID,
    Kind.EMPTY,
    Kind.TOO_LARGE,
    Kind.MEDIA_TYPE,
    Kind.OVERLOADED,
    Kind.SCORING,
    Kind.UNAVAILABLE,
    Kind.DEADLINE,
)


class Status(BaseModel):
    """Whether the server is well."""

    status: str


class Info(BaseModel):
    """What is served, and within which limits."""

    model_id: str
    model_dtype: str
    device: str
    max_input_length: int
    max_documents: int
    max_characters: int
    max_body_bytes: int
    version: str


def create_app(
    engine: ServedEngine | Callable[[], ServedEngine],
    settings: ServerSettings | None = None,
    *,
    on_load_error: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """Make the application.

    :param engine: an engine with ``normalize=False``; or what makes one, which is called in a
        thread when the application starts: until it returns, requests are answered with 503.
    :param settings: limits, key and deadline; None means the defaults.
    :param on_load_error: called on the event loop if the engine cannot be made.
    :raises ConfigurationError: if an engine is given that has ``normalize=True``.
    :raises MissingExtraError: if the extra ``serve`` is not installed.
    """
    settings = settings or ServerSettings()
    service = RerankService(engine, settings, on_load_error)
    metrics = Metrics(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        yield
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading

    def refuse(path: str, problem: Problem) -> Response:
        return _error_response(dialect_at(path), problem, settings)

    middleware = [
        Middleware(MetricsMiddleware, metrics),
        Middleware(BodyMiddleware, settings.max_body_bytes, refuse),
    ]
    if settings.api_key is not None:
        middleware.insert(1, Middleware(KeyMiddleware, settings.api_key, refuse))
    app = FastAPI(
        title="bge-rerank",
        summary="Rerank documents with a BGE cross-encoder, in the words of several services.",
        version=__version__,
        lifespan=lifespan,
        middleware=middleware,
        # their pages fetch scripts from elsewhere
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    for route in ROUTES:
        for path in route.paths:
            _add_route(app, service, metrics, route, path)
    _add_state_routes(app, service, metrics)
    _add_error_handlers(app, settings)
    add_playground(app)
    return app


def _add_route(
    app: FastAPI, service: RerankService, metrics: Metrics, route: Route, path: str
) -> None:
    forms = {form.request: form for form in route.forms}

    async def endpoint(request: Request, body: Any) -> Response:
        form = forms[type(body)]
        request.state.dialect = form.dialect
        questions = form.questions(body)
        metrics.documents.observe(sum(len(question.documents) for question in questions))
        start = time.perf_counter()
        try:
            answer = await while_connected(request, service.answer(questions))
        except ClientGoneError:
            # nobody reads it; the figures show it
            return Response(status_code=499)
        headers = {"Server-Timing": f"rerank;dur={(time.perf_counter() - start) * 1e3:.1f}"}
        return _json(form.reply(body, answer), headers=headers, keep_nulls=form.keep_nulls)

    # here, because the type differs from route to route
    endpoint.__annotations__["body"] = _body_type(route)
    app.post(
        path,
        name=f"{route.forms[0].dialect.name} {path}",
        response_model=None,
        responses=_responses(route),
        openapi_extra=_path_parameters(path),
    )(endpoint)


def _body_type(route: Route) -> Any:
    if len(route.forms) == 1:
        return route.forms[0].request

    def tag(body: object) -> str:
        return FORM_TAGS[route.forms.index(route.form_of(body))]

    tagged = [
        Annotated[form.request, Tag(name)]
        for name, form in zip(FORM_TAGS, route.forms, strict=True)
    ]
    return Annotated[Union[tuple(tagged)], Discriminator(tag)]  # noqa: UP007  # made at run time


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    """The answers that OpenAPI shows, the errors of all the path's dialects among them."""
    schemas: dict[int, dict[Any, None]] = {200: {form.response: None for form in route.forms}}
    for form in route.forms:
        for kind in _DOCUMENTED:
            status = form.dialect.status(kind)
            schemas.setdefault(status, {})[form.dialect.error_schema] = None
    return {
        status: {"model": Union[tuple(models)]}  # noqa: UP007  # made at run time
        for status, models in schemas.items()
    }


def _path_parameters(path: str) -> dict[str, Any] | None:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    return {"parameters": parameters} if parameters else None


def _add_state_routes(app: FastAPI, service: RerankService, metrics: Metrics) -> None:
    unavailable: dict[int | str, dict[str, Any]] = {503: {"model": Status}}

    @app.get("/health", response_model=Status, responses=unavailable)
    async def health() -> Response:
        """503 once the engine cannot answer any more: restart the process then."""
        return _status("ok" if service.is_alive else "failed", ok=service.is_alive)

    @app.get("/ready", response_model=Status, responses=unavailable)
    async def ready() -> Response:
        """503 while the model is being loaded: send no requests yet."""
        return _status("ready" if service.is_ready else "not ready", ok=service.is_ready)

    @app.get("/info", response_model=Info)
    async def info() -> Response:
        """What is served, and within which limits."""
        engine, stats, settings = service.engine, service.engine.stats(), service.settings
        return _json(
            Info(
                model_id=service.model_name,
                model_dtype=stats.dtype,
                device=stats.device,
                max_input_length=engine.max_length,
                max_documents=settings.max_documents,
                max_characters=settings.max_characters,
                max_body_bytes=settings.max_body_bytes,
                version=__version__,
            )
        )

    @app.get("/metrics", include_in_schema=False)
    async def figures() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_error_handlers(app: FastAPI, settings: ServerSettings) -> None:
    def answer(request: Request, problem: Problem, body: object = None) -> Response:
        known: Dialect | None = getattr(request.state, "dialect", None)
        dialect = known or dialect_at(request.url.path, body)
        return _error_response(dialect, problem, settings)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, validation_problem(error), error.body)

    @app.exception_handler(HTTPException)
    async def refused_by_framework(request: Request, error: HTTPException) -> Response:
        kind = _KIND_OF_STATUS.get(error.status_code, Kind.INTERNAL)
        message = _UNREADABLE if kind is Kind.MALFORMED else error.detail
        response = answer(request, Problem(kind, message))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return answer(request, error.problem)

    @app.exception_handler(RerankError)
    async def failed(request: Request, error: RerankError) -> Response:
        return answer(request, problem_of(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        return answer(request, Problem(Kind.INTERNAL, "the server failed on this request"))


def _error_response(dialect: Dialect, problem: Problem, settings: ServerSettings) -> Response:
    status = dialect.status(problem.kind)
    headers = {}
    if problem.kind in RETRY_LATER:
        headers["Retry-After"] = str(settings.retry_after_s)
    return _json(dialect.error_body(status, problem), status, headers, keep_nulls=True)


def _status(status: str, *, ok: bool) -> Response:
    return _json(Status(status=status), 200 if ok else 503)


def _json(
    body: BaseModel,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    keep_nulls: bool = False,
) -> Response:
    content = body.model_dump_json(exclude_none=not keep_nulls)
    return Response(content, status, headers, "application/json")
