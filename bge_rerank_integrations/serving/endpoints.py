"""The paths of the services: a body is parsed, scored, and answered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic_core import from_json

from ..errors import OverloadedError
from ..wire import Wire
from .answers import answer, answer_schema, json_response, status_of
from .api_errors import ApiError, ErrorKind, RefusedError
from .bodies import read, request_schema
from .metrics import Metrics
from .models import find_model
from .routes import Route, current_request
from .service import RerankService
from .shedding import Shedding

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

# parsed on the event loop: a body of this size takes a few milliseconds, whatever it holds
_SMALL_BYTES = 2**16
# integers take time with the square of their digits
_MAX_DIGITS = 100
_MAX_MESSAGE = 300
# one thread: parsing holds the GIL, and several threads would pass it on without the event loop
_PARSER = ThreadPoolExecutor(1, "json-parser")


class _ClientGoneError(Exception):
    """The client closed the connection before the response was ready."""


def add_endpoint(
    app: FastAPI, service: RerankService, metrics: Metrics, shedding: Shedding, route: Route
) -> None:
    """Add a path; it answers all services of the route."""

    @app.post(
        route.path,
        name=f"{route.wires[0].name} {route.path}",
        response_model=None,
        openapi_extra=_described(route),
    )
    async def endpoint(request: Request) -> Response:
        body = await _read_json(request, service.settings.max_documents)
        request.state.wire = wire = route.wire_of(body)
        asked = read(wire, body)
        metrics.documents.observe(len(asked.documents))
        start = time.perf_counter()
        # some services name the model in the path, and TEI and Cloudflare nowhere
        in_path: str | None = request.path_params.get("model")
        try:
            work = service.score(asked, in_path, ranks=not wire.in_input_order)
            result = await _while_connected(request, work)
        except OverloadedError as error:
            model = find_model(service.models, asked.model, in_path)
            shedding.note(service.models, model, request.headers, error)
            raise
        except _ClientGoneError:
            # for the metrics: no client is left to read it
            return Response(status_code=499)
        record = current_request()
        if record is not None:
            record.documents = len(asked.documents)
            record.tokens, record.model = result.tokens, result.model
        usage = result.scores.usage
        metrics.truncated_documents.inc(usage.truncated_documents)
        headers = {
            "Server-Timing": f"rerank;dur={(time.perf_counter() - start) * 1e3:.1f}",
            "X-Truncated-Documents": str(usage.truncated_documents),
            "X-Truncated-Query": str(usage.query_truncated).lower(),
        }
        return json_response(answer(wire, asked, result), headers=headers)


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


def _described(route: Route) -> dict[str, Any]:
    """The OpenAPI description of a path: bodies, answers and the errors of every service on it."""
    responses: dict[int, list[dict[str, Any]]] = {}
    for wire in route.wires:
        responses.setdefault(200, []).append(answer_schema(wire.answer))
        for kind in _DOCUMENTED:
            schemas = responses.setdefault(status_of(wire, kind), [])
            if (schema := answer_schema(wire.error)) not in schemas:
                schemas.append(schema)
    names = re.findall(r"\{(\w+)", route.path)
    return {
        "requestBody": {"required": True, "content": _one_of([*map(_reference, route.wires)])},
        "responses": {
            str(status): {
                "description": "Documents, best first." if status == 200 else "An error.",
                "content": _one_of(schemas),
            }
            for status, schemas in responses.items()
        },
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ],
    }


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    # a body without markers may fit several
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"application/json": {"schema": schema}}


def _reference(wire: Wire) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{request_schema(wire)['title']}"}


def add_request_schemas(document: dict[str, Any], routes: tuple[Route, ...]) -> dict[str, Any]:
    """Add the schemas of all request bodies to an OpenAPI document."""
    schemas = [request_schema(wire) for route in routes for wire in route.wires]
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update({schema["title"]: schema for schema in schemas})
    return document


async def _read_json(request: Request, max_documents: int) -> Any:
    """Read and parse the body of a request.

    :param max_documents: maximum number of documents in one request.
    :raises RefusedError: if it is not JSON, or holds more values than so many documents can.
    :raises HTTPException: if it is too large or too slow.
    """
    body = await request.body()
    if len(body) <= _SMALL_BYTES:
        return _parse(body)
    # objects with a dozen fields each, and the request's own fields
    max_values = 16 * max_documents + 1_000
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_PARSER, _parse_large, body, max_values)


def _parse_large(body: bytes, max_values: int) -> Any:
    refusal = why_refused(body, max_values)
    if refusal is not None:
        raise RefusedError(ApiError(ErrorKind.TOO_LARGE, refusal))
    return _parse(body)


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        # the parser's message has the place
        message = f"the body is not JSON: {error}"[:_MAX_MESSAGE]
        raise RefusedError(ApiError(ErrorKind.MALFORMED, message)) from None


def why_refused(body: bytes, max_values: int) -> str | None:
    """What about a JSON text takes too long to parse, seen without building any of its values.

    A value is the first one in its list or object, or follows a comma. Strings are skipped; their
    ends are found by their quotes, once escaped backslashes and quotes are removed. What is wrong
    about a text is found by the parser, which stops where it is wrong.

    :returns: None if nothing does.
    """
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    values = position = 0
    # names and values
    for _ in range(2 * max_values + 1):
        start = body.find(b'"', position)
        end = len(body) if start < 0 else start
        values += sum(body.count(mark, position, end) for mark in (b",", b"[", b"{"))
        if values >= max_values:
            break
        # a number of more digits may be found: of twice as many, it is
        for number in range(position, end - _MAX_DIGITS, _MAX_DIGITS):
            if body[number : number + _MAX_DIGITS + 1].isdigit():
                return f"a number may have {_MAX_DIGITS} digits"
        position = body.find(b'"', end + 1) + 1
        if not position:
            return None
    return f"a request may hold {max_values} JSON values"
