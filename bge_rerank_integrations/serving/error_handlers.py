"""Every failure, answered in the words of whoever asked."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from bge_rerank_integrations.errors import RerankError
from bge_rerank_integrations.serving.dialects.base import Dialect
from bge_rerank_integrations.serving.problems import Kind, Problem, problem_of
from bge_rerank_integrations.serving.replies import error_reply
from bge_rerank_integrations.serving.requests import validation_problem
from bge_rerank_integrations.serving.routes import dialect_at
from bge_rerank_integrations.serving.service import RefusedError

_KIND_OF_STATUS = {
    400: Kind.MALFORMED,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_ALLOWED,
    413: Kind.TOO_LARGE,
}
_UNREADABLE = "the body is not JSON in UTF-8, is nested too deeply or holds too long a number"


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
