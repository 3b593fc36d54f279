"""Errors of the API, before a dialect formats them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import ValidationError

from bge_rerank_integrations.errors import (
    ConfigurationError,
    DeadlineError,
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
    InputError,
    OverloadedError,
    RerankError,
)


class ErrorKind(str, Enum):
    """Kinds of errors; the value is the machine-readable name in responses."""

    MALFORMED = "malformed_request"
    INVALID = "invalid_request"
    EMPTY = "empty_request"
    UNAUTHORIZED = "invalid_api_key"
    HOST = "host_not_allowed"
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "method_not_allowed"
    SLOW = "request_timeout"
    TOO_LARGE = "request_too_large"
    MEDIA_TYPE = "unsupported_media_type"
    VERSION = "http_version_not_supported"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline_exceeded"
    SCORING = "scoring_failed"
    INTERNAL = "internal_error"


STATUSES: Mapping[ErrorKind, int] = {
    ErrorKind.MALFORMED: 400,
    ErrorKind.INVALID: 422,
    ErrorKind.EMPTY: 422,
    ErrorKind.UNAUTHORIZED: 401,
    ErrorKind.HOST: 421,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.NOT_ALLOWED: 405,
    ErrorKind.SLOW: 408,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.MEDIA_TYPE: 415,
    ErrorKind.VERSION: 505,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.DEADLINE: 504,
    ErrorKind.SCORING: 500,
    ErrorKind.INTERNAL: 500,
}

RETRY_LATER = frozenset({ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE})

_MAX_MESSAGE = 300

_KIND_OF_ERROR: tuple[tuple[type[RerankError], ErrorKind], ...] = (
    (InputError, ErrorKind.INVALID),
    # an option of the request that does not fit the model
    (ConfigurationError, ErrorKind.INVALID),
    (OverloadedError, ErrorKind.OVERLOADED),
    (DeadlineError, ErrorKind.DEADLINE),
    (EngineClosedError, ErrorKind.UNAVAILABLE),
    (EngineFailedError, ErrorKind.UNAVAILABLE),
    (ForkedProcessError, ErrorKind.UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class ApiError:
    """Why a request failed.

    :param message: one sentence that names the field or the document.
    :param field: the field at fault, e.g. ``documents[3]``.
    :param retry_after_s: seconds after which the request may succeed, where they are known.
    """

    kind: ErrorKind
    message: str
    field: str | None = None
    retry_after_s: float | None = None


class RefusedError(Exception):
    """The server rejects a request before the engine sees it."""

    def __init__(self, api_error: ApiError) -> None:
        super().__init__(api_error.message)
        self.api_error = api_error


def from_rerank_error(error: RerankError) -> ApiError:
    """Translate an error of the engine."""
    kind = next((kind for cls, kind in _KIND_OF_ERROR if isinstance(error, cls)), ErrorKind.SCORING)
    index = getattr(error, "index", None)
    retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
    field = None if index is None else f"documents[{index}]"
    return ApiError(kind, str(error), field, retry_after_s)


def from_validation_error(error: ValidationError) -> ApiError:
    """Translate the first validation error of a body.

    The message does not quote the input: it may be invalid Unicode.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = _field_name(first["loc"])
    kind = ErrorKind.EMPTY if first["type"] == "too_short" else ErrorKind.INVALID
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(kind, f"{field or 'the body'}: {message}"[:_MAX_MESSAGE], field or None)


def _field_name(location: Sequence[Any]) -> str:
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name
