"""Which device, in which precision, with how large batches."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable
from functools import cache

import torch

from ...errors import ConfigurationError
from ...setting_types import Dtype
from ..scorers.attention import Packing, packed_attention, split_heads
from ..scorers.int8 import weight_levels
from ..scorers.linear import has_prepacked, make_linear

logger = logging.getLogger(__name__)

# 16k tokens fill a data-centre GPU; on two CPU cores 1k, 2k and 4k were within 4 % of each other
_BATCH_TOKENS = {"cuda": 16_384, "cpu": 2_048}
_OTHER_BATCH_TOKENS = 4_096
# of a thread: the passes around products of 8 bits are fast while a batch's states are in the cache
_INT8_THREAD_TOKENS = 256
# what is timed on a CPU: some sequences in a layer of bge-reranker-base's width
_TIMED_LENGTHS, _TIMED_HEADS, _TIMED_HEAD_DIM = [64] * 4, 12, 64
_TIMED_RUNS = 3
_TESTED = ("cpu", "cuda", "mps")
# how much faster bfloat16 must be: it is less exact, and a busy machine must not decide
_LEAST_GAIN = 1.2
# glibc maps every block above 32 MiB
_LARGEST_KEPT_BLOCK = 31 * 2**20


def resolve_device(name: str) -> torch.device:
    """The device that a setting names; ``"auto"`` takes the best one there is.

    :raises ConfigurationError: if there is no such device on this machine.
    """
    if name == "auto":
        return torch.device(_best_device())
    device = torch.device(name)
    if device.type != "cpu" and not _is_there(device):
        raise ConfigurationError(
            f"device must be one that torch sees here ({', '.join(_seen())}), got {name!r}"
        )
    if device.type not in _TESTED:
        logger.warning(
            "device %s: this package is tested on %s; compare its scores with device='cpu' first",
            name,
            ", ".join(_TESTED),
        )
    return device


def select_device(device: torch.device) -> None:
    """Make a CUDA device that of this thread's calls which name none: pinned memory, kernels.

    Products in half precision are summed in float32 from then on, in the whole process: torch may
    else sum parts of them in half precision, as many as suit the batch's size.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def resolve_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The precision that a setting names on a device.

    ``int8`` is float32 on a CPU where it would be wrong or no faster, and the log says so.

    :raises ConfigurationError: for ``int8`` on another device than a CPU.
    """
    if dtype == "auto":
        return native_dtype(device)
    if dtype == "int8":
        return _int8_or_float32(device)
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved


def default_batch_tokens(device: torch.device, dtype: torch.dtype = torch.float32) -> int:
    """Tokens in one forward pass where the settings name no number."""
    if dtype is torch.int8:
        return min(_INT8_THREAD_TOKENS * max(torch.get_num_threads(), 2), _BATCH_TOKENS["cpu"])
    return _BATCH_TOKENS.get(device.type, _OTHER_BATCH_TOKENS)


def _int8_or_float32(device: torch.device) -> torch.dtype:
    if device.type != "cpu":
        raise ConfigurationError(f"dtype 'int8' is for device 'cpu', got device {str(device)!r}")
    if weight_levels() is None:
        logger.warning('dtype="int8" runs as float32: this CPU or torch has no exact 8-bit product')
        return torch.float32
    return torch.int8


def native_dtype(device: torch.device) -> torch.dtype:
    """Half precision only where it is faster, not where it is emulated."""
    if device.type == "cuda":
        ampere = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if ampere else torch.float16
    if device.type == "mps":
        return torch.float16
    if device.type == "cpu":
        times = cpu_times()
        if times.get("bfloat16", float("inf")) * _LEAST_GAIN < times["float32"]:
            return torch.bfloat16
    return torch.float32


@cache
def cpu_times() -> dict[str, float]:
    """Seconds that a linear layer and attention take on this CPU, by precision; timed once.

    The names of processors say little: bfloat16 may be emulated, or only its products be native.
    Without oneDNN's bfloat16 there is float32 alone.
    """
    layers = {
        dtype: _timed_layer(dtype)
        for dtype in (torch.float32, torch.bfloat16)
        if dtype is torch.float32 or has_prepacked(dtype)
    }
    times = dict.fromkeys(layers, float("inf"))
    # the first round compiles
    for number in range(1 + _TIMED_RUNS):
        for dtype, layer in layers.items():
            started = time.perf_counter()
            layer()
            if number:
                times[dtype] = min(times[dtype], time.perf_counter() - started)
    return {str(dtype).removeprefix("torch."): seconds for dtype, seconds in times.items()}


def dtype_times(dtype: Dtype, device: torch.device) -> dict[str, float]:
    """What ``auto`` chose a precision by: :func:`cpu_times` on a CPU, nothing elsewhere."""
    return dict(cpu_times()) if dtype == "auto" and device.type == "cpu" else {}


def _timed_layer(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    width = _TIMED_HEADS * _TIMED_HEAD_DIM
    linear = make_linear(torch.zeros(3 * width, width, dtype=dtype), None)
    packing = Packing.from_lengths(_TIMED_LENGTHS, torch.device("cpu"))
    rows = torch.zeros(sum(_TIMED_LENGTHS), width, dtype=dtype)

    def run() -> torch.Tensor:
        query, key, value = split_heads(linear(rows), 3, _TIMED_HEADS)
        return packed_attention(query, key, value, packing, packing, scale=1.0)

    return run


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _is_there(device: torch.device) -> bool:
    if device.type == "mps":
        return torch.backends.mps.is_available()
    backend = getattr(torch, device.type)
    return bool(backend.is_available() and (device.index or 0) < backend.device_count())


def _seen() -> list[str]:
    names = ["cpu", *(["mps"] if torch.backends.mps.is_available() else [])]
    for kind in ("cuda", "xpu"):
        backend = getattr(torch, kind)
        names += [
            f"{kind}:{i}" for i in range(backend.device_count() if backend.is_available() else 0)
        ]
    return names


def return_freed_memory() -> None:
    """Let glibc give memory that was freed back to the system; elsewhere nothing happens.

    It keeps what was freed between tensors that stay, as float32 weights that are rounded in turn.
    """
    if sys.platform == "linux":
        # other C libraries lack it
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def keep_batch_memory() -> None:
    """Let glibc keep the memory of a batch's states for the next batch; elsewhere nothing changes.

    It maps blocks anew that are larger than any mapped one freed so far, and every page of them is
    a fault: a third of the time of the built-in model's passes in eight bits.
    """
    torch.empty(_LARGEST_KEPT_BLOCK, dtype=torch.uint8)


def release_memory() -> None:
    """Give cached device memory back after a model was let go."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
