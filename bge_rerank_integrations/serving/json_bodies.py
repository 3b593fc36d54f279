"""Parse JSON bodies so that none of them holds up the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind, RefusedError

# parsed on the event loop: a body of this size takes a few milliseconds, whatever it holds
_SMALL_BYTES = 2**16
# integers take time with the square of their digits
_MAX_DIGITS = 100
_MAX_MESSAGE = 300
# one thread: parsing holds the GIL, and several threads would pass it on without the event loop
_PARSER = ThreadPoolExecutor(1, "json-parser")


async def read_json(request: Request, max_documents: int) -> Any:
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
