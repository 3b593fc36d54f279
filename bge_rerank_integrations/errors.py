"""Every error this package raises on purpose.

::

    RerankError
    ├── ConfigurationError (ValueError)      an invalid setting
    ├── InputError (ValueError)              a query or document that cannot be scored
    ├── MissingExtraError (ImportError)      an optional dependency is not installed
    ├── ModelLoadError                       the checkpoint cannot be read
    │   └── UnsupportedModelError            it can be read, but not run as a reranker
    ├── ScoringError                         the forward pass failed for this call
    │   └── NonFiniteScoreError              the model answered NaN or infinity
    ├── RemoteError                          a remote service failed, or answered nonsense
    ├── OverloadedError                      the queue is full
    ├── DeadlineError (TimeoutError)         the call's own deadline passed
    ├── EngineClosedError                    the engine was closed
    ├── EngineFailedError                    a thread or the last device was lost
    └── ForkedProcessError                   a forked child, in which the engine might hang

``InputError`` and ``ScoringError`` carry ``index``: the position of the document (or pair) in the
caller's list, or None where it is the query or cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence


class RerankError(Exception):
    """Base class of every error raised by this package."""

    def __str__(self) -> str:
        # what else an error carries is no part of its message
        return str(self.args[0]) if self.args else ""


class ConfigurationError(RerankError, ValueError):
    """An invalid setting; the message says what was expected and what came."""


class _IndexedError(RerankError):
    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message, index)
        self.index = index


class InputError(_IndexedError, ValueError):
    """A query or a document that cannot be scored.

    :param message: what is wrong.
    :param index: position of the document in the caller's list; None means the query.
    """


class MissingExtraError(RerankError, ImportError):
    """An optional dependency is not installed; the message is the pip command that installs it."""

    def __init__(self, extra: str) -> None:
        super().__init__(extra)
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"the optional dependencies {self.extra!r} are not installed: "
            f'pip install "bge-rerank-integrations[{self.extra}]"'
        )


class ModelLoadError(RerankError):
    """The checkpoint is missing, incomplete, corrupt or out of reach."""


class UnsupportedModelError(ModelLoadError):
    """The checkpoint is readable, but of an architecture that is not a supported reranker."""


class ScoringError(_IndexedError):
    """The forward pass failed for this call; other calls are not affected.

    :param message: what went wrong.
    :param index: position of the document (or pair) in the caller's list, where it is known.
    """


class NonFiniteScoreError(ScoringError):
    """The model answered NaN or infinity for a document.

    :param index: position of the document in the caller's list.
    :param value: what the model answered.
    """

    def __init__(self, index: int, value: float) -> None:
        super().__init__(
            f"the score of document {index} must be finite, the model gave {value}", index
        )
        self.value = value

    def __reduce__(self) -> tuple[type[NonFiniteScoreError], tuple[int | None, float]]:
        return type(self), (self.index, self.value)


class RemoteError(RerankError):
    """A remote service could not be reached, answered with an error, or answered nonsense.

    :param message: what went wrong.
    :param status: the HTTP status code, where there is one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status


class OverloadedError(RerankError):
    """The queue is full, and stayed so for ``queue_timeout_s``; or a remote service said so.

    :param message: what is full.
    :param retry_after_s: seconds after which there may be a place again, where that is known.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s


class DeadlineError(RerankError, TimeoutError):
    """The call's deadline passed before its scores were ready."""


class EngineClosedError(RerankError):
    """The engine was closed before or while this call waited."""


class EngineFailedError(RerankError):
    """The engine broke beyond repair (its cause is chained); close it and make a new one."""


class ForkedProcessError(RerankError):
    """The process was forked while a model computed, or after its GPU was in use."""


#: every later call would meet them too, so that no answer without a rerank may hide them
PERMANENT_ERRORS = (
    ConfigurationError,
    MissingExtraError,
    ModelLoadError,
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
)


def placed(error: Exception, places: Sequence[int]) -> Exception:
    """An error of one of some documents, with its place in the caller's list.

    :param places: the place of each document that was scored.
    """
    if not isinstance(error, (InputError, ScoringError)) or error.index is None:
        return error
    if not 0 <= error.index < len(places) or places[error.index] == error.index:
        return error
    place = places[error.index]
    message = str(error).replace(f"document {error.index}", f"document {place}", 1)
    return relocated(error, place, message)


def relocated(
    error: InputError | ScoringError, index: int, message: str
) -> InputError | ScoringError:
    """An error of the same kind, of a document in another place."""
    if isinstance(error, NonFiniteScoreError):
        return NonFiniteScoreError(index, error.value)
    kind = InputError if isinstance(error, InputError) else ScoringError
    return kind(message, index)
