"""Sequences one behind the other in one tensor, and tensors between host and device.

A copy from or to ordinary memory waits for all that the device has been given to do; a copy from or
to pinned memory is queued behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each sequence lies in a packed batch.

    :param lengths: tokens of each sequence, in order.
    :param starts: `(n + 1,)` int32 on the batch's device: each sequence's first token, and the end.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device) -> Packing:
        """Lay sequences of these lengths one behind the other."""
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(tuple(lengths), upload(starts, device))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)


def positions_of(lengths: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each token's position within its sequence, `(tokens,)`, for sequences of these lengths."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)


def common_runs(queries: Packing, keys: Packing) -> Iterator[tuple[int, int, int]]:
    """(query length, key length, count) of each run in which both lengths stay the same."""
    pairs = zip(queries.lengths, keys.lengths, strict=True)
    for (query_length, key_length), run in groupby(pairs):
        yield query_length, key_length, sum(1 for _ in run)


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host, on the device."""
    if device.type != "cuda":
        # elsewhere a copy that nobody waits for may read memory that was freed: pytorch#189690
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
