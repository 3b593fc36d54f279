"""Answer errors, each in the format of the service that was asked."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from bge_rerank_integrations.errors import RerankError
from bge_rerank_integrations.serving.access_log import REQUEST_ID_HEADER, current_request
from bge_rerank_integrations.serving.api_errors import (
    ApiError,
    ErrorKind,
    RefusedError,
    from_rerank_error,
)
from bge_rerank_integrations.serving.routes import wire_at
from bge_rerank_integrations.wire import Wire

_KIND_OF_STATUS = {
    400: ErrorKind.MALFORMED,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.NOT_ALLOWED,
    408: ErrorKind.SLOW,
    413: ErrorKind.TOO_LARGE,
    503: ErrorKind.UNAVAILABLE,
}


def add_error_handlers(app: FastAPI, make: Callable[[Wire, ApiError], Response]) -> None:
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
