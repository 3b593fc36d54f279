"""Write bodies as responses, and every error in the dialect of the request."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from bge_rerank_integrations.errors import RerankError
from bge_rerank_integrations.serving.api_errors import (
    RETRY_LATER,
    Kind,
    Problem,
    problem_of,
    validation_problem,
)
from bge_rerank_integrations.serving.dialects.base import Dialect
from bge_rerank_integrations.serving.routes import dialect_at
from bge_rerank_integrations.serving.service import RefusedError

_KIND_OF_STATUS = {
    400: Kind.MALFORMED,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_ALLOWED,
    413: Kind.TOO_LARGE,
}
_UNREADABLE = "the body is not JSON in UTF-8, is nested too deeply or holds too long a number"


def json_reply(
    body: BaseModel,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    keep_nulls: bool = False,
) -> Response:
    """A body as a response.

    :param keep_nulls: write fields that are None.
    """
    content = body.model_dump_json(exclude_none=not keep_nulls)
    return Response(content, status, headers, "application/json")


def error_reply(dialect: Dialect, problem: Problem, retry_after_s: int) -> Response:
    """A problem in a dialect's words."""
    status = dialect.status(problem.kind)
    headers = {}
    if problem.kind in RETRY_LATER:
        headers["Retry-After"] = str(retry_after_s)
    return json_reply(dialect.error_body(status, problem), status, headers, keep_nulls=True)


def add_error_handlers(app: FastAPI, retry_after_s: int) -> None:
    """Answer errors of the engine, of the framework and of this server."""

    def answer(request: Request, problem: Problem, body: object = None) -> Response:
        known: Dialect | None = getattr(request.state, "dialect", None)
        dialect = known or dialect_at(request.url.path, body)
        return error_reply(dialect, problem, retry_after_s)

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
