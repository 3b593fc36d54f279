"""Add the routes of the dialects to the application."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, Union

from fastapi import FastAPI, Request, Response
from pydantic import Discriminator, GetJsonSchemaHandler, Tag
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from bge_rerank_integrations.serving.access_log import current_request
from bge_rerank_integrations.serving.api_errors import OPERATION_TAGS, ErrorKind
from bge_rerank_integrations.serving.metrics import Metrics
from bge_rerank_integrations.serving.responses import json_response
from bge_rerank_integrations.serving.routes import Route
from bge_rerank_integrations.serving.service import RerankService

T = TypeVar("T")

_DOCUMENTED = (
    ErrorKind.MALFORMED,
    ErrorKind.INVALID,
    ErrorKind.EMPTY,
    ErrorKind.NOT_FOUND,
    ErrorKind.TOO_LARGE,
    ErrorKind.MEDIA_TYPE,
    ErrorKind.OVERLOADED,
    ErrorKind.SCORING,
    ErrorKind.UNAVAILABLE,
    ErrorKind.DEADLINE,
)


class _ClientGoneError(Exception):
    """The client closed the connection before the response was ready."""


def add_endpoint(
    app: FastAPI, service: RerankService, metrics: Metrics, route: Route, path: str
) -> None:
    """Add one path of a route; it answers all operations of the route."""
    operations = {operation.request: operation for operation in route.operations}

    async def endpoint(request: Request, body: Any) -> Response:
        operation = operations[type(body)]
        request.state.dialect = operation.dialect
        score_request = operation.to_score_request(body)
        metrics.documents.observe(len(score_request.documents))
        start = time.perf_counter()
        try:
            work = service.score(score_request, _model_name(request, body))
            result = await _while_connected(request, work)
        except _ClientGoneError:
            # for the metrics: no client is left to read it
            return Response(status_code=499)
        request_record = current_request()
        if request_record is not None:
            request_record.documents = len(score_request.documents)
            request_record.tokens, request_record.model = result.tokens, result.model
        usage = result.scores.usage
        metrics.truncated_documents.inc(usage.truncated_documents)
        headers = {
            "Server-Timing": f"rerank;dur={(time.perf_counter() - start) * 1e3:.1f}",
            "X-Truncated-Documents": str(usage.truncated_documents),
            "X-Truncated-Query": str(usage.query_truncated).lower(),
        }
        return json_response(
            operation.to_response(body, result), headers=headers, keep_nulls=operation.keep_nulls
        )

    # set here: each route has its own type
    endpoint.__annotations__["body"] = _body_type(route)
    app.post(
        path,
        name=f"{route.operations[0].dialect.name} {path}",
        response_model=None,
        responses=_responses(route),
        openapi_extra=_path_parameters(path),
    )(endpoint)


def _model_name(request: Request, body: Any) -> str | None:
    # some services name it in the path, and TEI and Cloudflare nowhere
    name: str | None = request.path_params.get("model") or getattr(body, "model", None)
    return name


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it when the client disconnects.

    :param request: a request whose body has been read.
    :raises _ClientGoneError: if the client disconnects first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _body_type(route: Route) -> Any:
    if len(route.operations) == 1:
        return route.operations[0].request

    def tag(body: object) -> str:
        return OPERATION_TAGS[route.operations.index(route.operation_of(body))]

    tagged = [
        Annotated[operation.request, Tag(name)]
        for name, operation in zip(OPERATION_TAGS, route.operations, strict=False)
    ]
    return Annotated[Union[tuple(tagged)], Discriminator(tag), _AnyOf()]  # noqa: UP007  # made at run time


class _AnyOf:
    """A body without markers may fit several schemas; the first operation answers it."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        return {"anyOf": schema["oneOf"]}


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    """Response schemas for OpenAPI, with the errors of every dialect on the path."""
    schemas: dict[int, dict[Any, None]] = {
        200: {operation.response: None for operation in route.operations}
    }
    for operation in route.operations:
        for kind in _DOCUMENTED:
            status = operation.dialect.status(kind)
            schemas.setdefault(status, {})[operation.dialect.error_schema] = None
    return {
        status: {"model": Union[tuple(models)]}  # noqa: UP007  # made at run time
        for status, models in schemas.items()
    }


def _path_parameters(path: str) -> dict[str, Any] | None:
    names = re.findall(r"\{(\w+)", path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    return {"parameters": parameters} if parameters else None
