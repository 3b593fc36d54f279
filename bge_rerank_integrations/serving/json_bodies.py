"""Parse JSON bodies so that none of them holds up the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException

# parsed on the event loop: a body of this size takes a few milliseconds, whatever it holds
_SMALL_BYTES = 2**16
# integers take time with the square of their digits
_MAX_DIGITS = 100
# one thread: parsing holds the GIL, and several threads would pass it on without the event loop
_PARSER = ThreadPoolExecutor(1, "json-parser")


def json_route(max_documents: int) -> type[APIRoute]:
    """Make the class of routes whose bodies hold few JSON values.

    :param max_documents: maximum number of documents in one request.
    """
    # objects with a dozen fields each, and the request's own fields
    max_values = 16 * max_documents + 1_000

    class JsonRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                return await handler(_JsonRequest(request, max_values))

            return handle

    return JsonRoute


class _JsonRequest(Request):
    def __init__(self, request: Request, max_values: int) -> None:
        super().__init__(request.scope, request.receive)
        self._max_values = max_values

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= _SMALL_BYTES:
            return _parse(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_PARSER, self._parse_large, body)

    def _parse_large(self, body: bytes) -> Any:
        refusal = why_refused(body, self._max_values)
        if refusal is not None:
            raise HTTPException(413, refusal)
        return _parse(body)


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        # the error that FastAPI expects; the message has the place
        raise json.JSONDecodeError(str(error), "", 0) from None


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
