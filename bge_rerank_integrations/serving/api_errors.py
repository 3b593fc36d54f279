"""Errors of the API, before a dialect formats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import ValidationError

from ..errors import (
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
    """Kinds of errors; the value is the machine-readable name in responses.

    :ivar status: the HTTP status of the kind, unless a service has its own.
    """

    status: int

    MALFORMED = "malformed_request", 400
    INVALID = "invalid_request", 422
    EMPTY = "empty_request", 422
    UNAUTHORIZED = "invalid_api_key", 401
    HOST = "host_not_allowed", 421
    NOT_FOUND = "not_found", 404
    NOT_ALLOWED = "method_not_allowed", 405
    SLOW = "request_timeout", 408
    TOO_LARGE = "request_too_large", 413
    MEDIA_TYPE = "unsupported_media_type", 415
    VERSION = "http_version_not_supported", 505
    OVERLOADED = "overloaded", 429
    UNAVAILABLE = "unavailable", 503
    DEADLINE = "deadline_exceeded", 504
    SCORING = "scoring_failed", 500
    INTERNAL = "internal_error", 500

    def __new__(cls, name: str, status: int) -> ErrorKind:
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.status = status
        return kind


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


def from_validation_error(error: ValidationError, name: str) -> ApiError:
    """Translate the first validation error of a field.

    The message does not quote the input: it may be invalid Unicode.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = _field_name(name, first["loc"])
    kind = ErrorKind.EMPTY if first["type"] == "too_short" else ErrorKind.INVALID
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(kind, f"{field}: {message}"[:_MAX_MESSAGE], field)


def _field_name(name: str, location: Sequence[Any]) -> str:
    for part in location:
        index = f"[{part}]" if isinstance(part, int) else f".{part}"
        name = name.replace("[]", index, 1) if "[]" in name else name + index
    return name
