"""Serialize bodies and errors; each error takes the format of the request's dialect."""

from __future__ import annotations

import math
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from bge_rerank_integrations.errors import RerankError
from bge_rerank_integrations.serving.access_log import REQUEST_ID_HEADER, current_request
from bge_rerank_integrations.serving.api_errors import (
    RETRY_LATER,
    ApiError,
    ErrorKind,
    from_rerank_error,
    from_validation_error,
)
from bge_rerank_integrations.serving.dialects.base import Dialect
from bge_rerank_integrations.serving.models import RefusedError
from bge_rerank_integrations.serving.routes import dialect_at

_KIND_OF_STATUS = {
    400: ErrorKind.MALFORMED,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.NOT_ALLOWED,
    408: ErrorKind.SLOW,
    413: ErrorKind.TOO_LARGE,
    503: ErrorKind.UNAVAILABLE,
}
_UNREADABLE = "the body is not JSON in UTF-8, is nested too deeply or holds too long a number"


def json_response(
    body: BaseModel,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    keep_nulls: bool = False,
) -> Response:
    """Serialize a body.

    :param keep_nulls: include fields that are None.
    """
    content = body.model_dump_json(exclude_none=not keep_nulls)
    return Response(content, status, headers, "application/json")


def error_response(dialect: Dialect, error: ApiError, retry_after_s: int) -> Response:
    """Serialize an error in a dialect's format.

    :param retry_after_s: seconds for ``Retry-After`` if the error itself does not tell them.
    """
    status = dialect.status(error.kind)
    headers = {}
    if error.kind in RETRY_LATER:
        known_s = error.retry_after_s
        seconds = retry_after_s if known_s is None else max(math.ceil(known_s), 1)
        headers["Retry-After"] = str(seconds)
    return json_response(dialect.error_body(status, error), status, headers, keep_nulls=True)


def add_error_handlers(app: FastAPI, make: Callable[[Dialect, ApiError], Response]) -> None:
    """Handle errors of the engine, of FastAPI and of this server.

    :param make: dialect and error → response.
    """

    def respond(request: Request, error: ApiError, body: object = None) -> Response:
        known: Dialect | None = getattr(request.state, "dialect", None)
        # not of the URL, which is without line breaks that a path may have
        dialect = known or dialect_at(request.scope["path"], body)
        return make(dialect, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(request, from_validation_error(error), error.body)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        kind = _KIND_OF_STATUS.get(error.status_code, ErrorKind.INTERNAL)
        message = _UNREADABLE if kind is ErrorKind.MALFORMED else error.detail
        response = respond(request, ApiError(kind, message))
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
