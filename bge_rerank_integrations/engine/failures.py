"""What an exception of a forward pass means for the calls that wait."""

from __future__ import annotations

# The device's context is lost: nothing runs on it again in this process.
_FATAL = ("device-side assert", "illegal memory access", "unspecified launch failure", "ecc error")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed.

    torch reports a full GPU with ``torch.OutOfMemoryError`` and a full CPU with a plain
    ``RuntimeError`` of its allocator; both say so in their message.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _mentions(error, _OUT_OF_MEMORY)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the device is broken for good: every further forward pass would fail too."""
    return not isinstance(error, Exception) or (
        isinstance(error, RuntimeError) and _mentions(error, _FATAL)
    )


def _mentions(error: BaseException, phrases: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(phrase in message for phrase in phrases)
