"""What an exception of a forward pass means for the calls that wait."""

from __future__ import annotations

from bge_rerank_integrations.errors import RerankError

# The device's context is lost: nothing runs on it again in this process. These are the errors of
# which CUDA's documentation says that the process must be terminated, in the words of
# cudaGetErrorString.
_FATAL = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "global/shared address space",
    "unspecified launch failure",
    "launch timed out",
    "ecc error",
    "nvlink error",
    "peer gpu memory over nvlink or a hardware error",
    "tensor memory not completely freed",
    "external entity outside of cuda",
    "mps client has been terminated",
    "context is destroyed",
    # not in that list: what a GPU that has fallen off the bus answers to everything
    "cuda error: unknown error",
)
# a full GPU may also leave cuBLAS without memory for its workspace
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed.

    torch reports a full GPU with ``torch.OutOfMemoryError`` or with cuBLAS's status, and a full CPU
    with a plain ``RuntimeError`` of its allocator; all say so in their message.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _mentions(error, _OUT_OF_MEMORY)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether every further forward pass would fail too: the device or the thread is lost."""
    return is_exit(error) or (isinstance(error, RuntimeError) and _mentions(error, _FATAL))


def is_exit(error: BaseException) -> bool:
    """Whether an exception wants to end the thread rather than to report a failure.

    A panic in the Rust of a tokenizer is no ``Exception``, but still one document's failure.
    """
    return not isinstance(error, Exception) and type(error).__name__ != "PanicException"


def without_traceback(error: BaseException) -> BaseException:
    """The same error, and those that it came from, without their tracebacks.

    Their frames would keep a batch's tensors alive, or a failed engine's weights.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _mentions(error: BaseException, phrases: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(phrase in message for phrase in phrases)


def caused_by(error: RerankError, cause: BaseException) -> RerankError:
    """The error, with what caused it chained to it."""
    error.__cause__ = cause
    return error
