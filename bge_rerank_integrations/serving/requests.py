"""From a request's first look to the problem it may have."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from bge_rerank_integrations.serving.problems import Kind, Problem

T = TypeVar("T")

# tags of the forms where a path has several; they are in the errors' locations
FORM_TAGS = ("form-0", "form-1")
_MAX_MESSAGE = 300


class ClientGoneError(Exception):
    """The client closed the connection before its answer was ready."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it when the client goes away.

    :param request: whose body was read already.
    :raises ClientGoneError: if the client went first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def validation_problem(error: RequestValidationError) -> Problem:
    """The first thing that is wrong with a body, in one sentence.

    What came is not repeated: it may be no valid Unicode, or no valid JSON.
    """
    errors: Sequence[Any] = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return Problem(Kind.MALFORMED, f"the body is not JSON: {reason}"[:_MAX_MESSAGE])
    # a tag stands where a path has several forms, and is no field
    location = [part for part in first["loc"] if part != "body" and part not in FORM_TAGS]
    field = _field_name(location)
    kind = Kind.EMPTY if first["type"] == "too_short" else Kind.INVALID
    message = first["msg"].removeprefix("Value error, ")
    return Problem(kind, f"{field or 'the body'}: {message}"[:_MAX_MESSAGE], field or None)


def _field_name(location: Sequence[Any]) -> str:
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name
