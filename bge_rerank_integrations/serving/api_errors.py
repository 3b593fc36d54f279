"""What can go wrong with a request, before any dialect puts it in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fastapi.exceptions import RequestValidationError

from bge_rerank_integrations.errors import (
    DeadlineError,
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
    InputError,
    OverloadedError,
    RerankError,
)


class Kind(str, Enum):
    """Kinds of problems; the value is the machine-readable name on the wire."""

    MALFORMED = "malformed_request"
    INVALID = "invalid_request"
    EMPTY = "empty_request"
    UNAUTHORIZED = "invalid_api_key"
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "method_not_allowed"
    TOO_LARGE = "request_too_large"
    MEDIA_TYPE = "unsupported_media_type"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline_exceeded"
    SCORING = "scoring_failed"
    INTERNAL = "internal_error"


STATUSES: Mapping[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.INVALID: 422,
    Kind.EMPTY: 422,
    Kind.UNAUTHORIZED: 401,
    Kind.NOT_FOUND: 404,
    Kind.NOT_ALLOWED: 405,
    Kind.TOO_LARGE: 413,
    Kind.MEDIA_TYPE: 415,
    Kind.OVERLOADED: 429,
    Kind.UNAVAILABLE: 503,
    Kind.DEADLINE: 504,
    Kind.SCORING: 500,
    Kind.INTERNAL: 500,
}

RETRY_LATER = frozenset({Kind.OVERLOADED, Kind.UNAVAILABLE})

# tags of the forms where a path has several; they are in the errors' locations
FORM_TAGS = ("form-0", "form-1")
_MAX_MESSAGE = 300

_KIND_OF_ERROR: tuple[tuple[type[RerankError], Kind], ...] = (
    (InputError, Kind.INVALID),
    (OverloadedError, Kind.OVERLOADED),
    (DeadlineError, Kind.DEADLINE),
    (EngineClosedError, Kind.UNAVAILABLE),
    (EngineFailedError, Kind.UNAVAILABLE),
    (ForkedProcessError, Kind.UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request is not answered as asked.

    :param message: one sentence for a person; names the field or the document.
    :param field: the field of the request that is wrong, e.g. ``documents[3]``.
    """

    kind: Kind
    message: str
    field: str | None = None


def problem_of(error: RerankError) -> Problem:
    """What an error of the engine means to a client."""
    kind = next((kind for cls, kind in _KIND_OF_ERROR if isinstance(error, cls)), Kind.SCORING)
    index = getattr(error, "index", None)
    return Problem(kind, str(error), None if index is None else f"documents[{index}]")


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
