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
        if not holds_at_most(self._max_values, body):
            raise HTTPException(413, f"a request may hold {self._max_values} JSON values")
        return _parse(body)


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        # the error that FastAPI expects; the message has the place
        raise json.JSONDecodeError(str(error), "", 0) from None


def holds_at_most(count: int, body: bytes) -> bool:
    """Whether a JSON text holds at most so many values, seen without building any of them.

    A value is the first one in its list or object, or follows a comma. Strings are skipped; their
    ends are found by their quotes, once escaped backslashes and quotes are removed. What is wrong
    about a text is found by the parser, which stops where it is wrong.
    """
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    position = 0
    # names and values
    for _ in range(2 * count + 1):
        start = body.find(b'"', position)
        end = len(body) if start < 0 else start
        count -= sum(body.count(mark, position, end) for mark in (b",", b"[", b"{"))
        if count < 1:
            return False
        position = body.find(b'"', end + 1) + 1
        if not position:
            return True
    return False
