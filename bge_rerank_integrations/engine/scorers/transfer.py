"""Tensors between host and device, without waiting for either.

A copy from or to ordinary memory waits for all that the device has been given to do; one from or to
pinned memory takes its place behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host, on the device."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def download(logits: torch.Tensor) -> npt.ArrayLike:
    """Float32 logits as an array of the host, which on CUDA may still be computed."""
    if logits.is_cuda:
        return _PendingArray(logits)
    array: npt.NDArray[np.float32] = logits.float().cpu().numpy()
    return array


class _PendingArray:
    """A copy that is under way; ``np.asarray`` waits for it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        tensor = tensor.float()
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(tensor.device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        self._copied.synchronize()
        return np.array(self._host.numpy(), dtype=dtype)
