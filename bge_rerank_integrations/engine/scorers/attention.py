"""Padding-free attention: sequences lie one behind the other, each attends to itself only.

On CUDA in half precision this is torch's flash kernel, which takes a window, too; elsewhere one
scaled-dot-product call per run of equally long sequences, or in bfloat16 on the CPU two matmuls for
a group of sequences of about the same length. A GPU without that kernel (Apple's, or CUDA in
float32 or below compute capability 8.0) is given lengths that are rounded up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from .cpu_attention import fused_attention, grouped_attention, groups, takes_matmul

# Metal's graphs keep a kernel for every shape: there each sequence is a call of its own
_BOUNDED_DEVICE = "mps"
# a call for every length would leave the device idle: here neighbors of like lengths share one
_PADDED_DEVICE = "cuda"
_LENGTH_MULTIPLE = 64


class _Grid(NamedTuple):
    """Neighboring sequences of a batch as one rectangle.

    :param rows: of the queries, `(sequences, length)` int64 on the device; the last is repeated.
    :param seen: rows of the keys, likewise.
    :param is_real: False for repeated keys, `(sequences, 1, 1, length)`; None if all are real.
    """

    rows: torch.Tensor
    seen: torch.Tensor
    is_real: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Where each sequence lies in a packed batch.

    :param lengths: tokens of each sequence, in order.
    :param starts: `(n + 1,)` int32 on the batch's device: each sequence's first token, and the end.
    :param grids: for queries packed so, by the lengths of their keys; all layers use the same.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor
    grids: dict[tuple[int, ...], list[_Grid]] = field(default_factory=dict, repr=False)

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
    """A tensor of the host, on the device.

    A copy from or to ordinary memory waits for all that the device has been given to do; one from
    or to pinned memory is queued behind it.
    """
    if device.type != "cuda":
        # elsewhere a copy that nobody waits for may read memory that was freed: pytorch#189690
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Packing,
    keys: Packing,
    *,
    scale: float,
    causal: bool = False,
) -> torch.Tensor:
    """Attention within each sequence of a packed batch.

    :param query: `(query_tokens, heads, head_dim)`; rows after the last sequence may follow, in
        ``key`` and ``value`` too, and are 0 in the result.
    :param key: `(tokens, key_heads, head_dim)`; heads is a multiple of key_heads.
    :param value: like ``key``.
    :param queries: the queries' packing; as many sequences as ``keys``.
    :param keys: the keys' and values' packing.
    :param scale: factor on the dot products.
    :param causal: each token sees itself and those before it; queries and keys must then be packed
        alike.
    :returns: `(query_tokens, heads, head_dim)`.
    """
    if has_flash_kernel(query):
        from .flash_attention import flash_attention

        window = (-1, 0) if causal else (-1, -1)
        return flash_attention(query, key, value, queries, keys, scale=scale, window=window)
    if query.device.type in (_BOUNDED_DEVICE, _PADDED_DEVICE):
        return bounded_attention(query, key, value, queries, keys, scale=scale, causal=causal)
    attended = []
    if takes_matmul(query, key) and queries.lengths == keys.lengths and not causal:
        start = 0
        for lengths in groups(queries.lengths, heads=query.shape[1]):
            rows = slice(start, start + sum(lengths))
            attended += grouped_attention(query[rows], key[rows], value[rows], lengths, scale)
            start = rows.stop
    else:
        start = key_start = 0
        for query_length, key_length, count in common_runs(queries, keys):
            rows = slice(start, start + count * query_length)
            seen = slice(key_start, key_start + count * key_length)
            attended.append(
                fused_attention(query[rows], key[seen], value[seen], count, scale, causal=causal)
            )
            start, key_start = rows.stop, seen.stop
    return torch.cat([*attended, torch.zeros_like(query[start:])])


def bounded_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Packing,
    keys: Packing,
    *,
    scale: float,
    causal: bool,
) -> torch.Tensor:
    """The same as :func:`packed_attention`, with tensors of few shapes whatever the lengths.

    Sequences are gathered with their lengths rounded up; what is too much repeats the last token.
    """
    grouped = query.shape[1] != key.shape[1]
    output = torch.zeros_like(query)
    if keys.lengths not in queries.grids:
        queries.grids[keys.lengths] = list(_grids(queries, keys, query.device))
    for rows, seen, is_real in queries.grids[keys.lengths]:
        q, k, v = (
            states.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)
            for states, index in ((query, rows), (key, seen), (value, seen))
        )
        mask = is_real
        if causal and mask is not None:
            # a repeated query must not see a key twice either
            ones = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=query.device)
            mask = mask & ones.tril()
        attended = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal and mask is None,
            scale=scale,
            enable_gqa=grouped,
        )
        # the same state is written once and again
        output.index_copy_(0, rows.flatten(), attended.transpose(1, 2).flatten(0, 1))
    return output


def _grids(queries: Packing, keys: Packing, device: torch.device) -> Iterator[_Grid]:
    """Neighbors of equal rounded lengths; on Apple's GPU each sequence alone."""
    spans = list(zip(_spans(queries), _spans(keys), strict=True))

    def kind(number: int) -> object:
        shape = tuple(_rounded(end - start) for start, end in spans[number])
        return (shape, number) if device.type == _BOUNDED_DEVICE else shape

    for _, run in groupby(range(len(spans)), kind):
        of_queries, of_keys = zip(*(spans[number] for number in run), strict=True)
        (rows, _), (seen, is_real) = _rows(of_queries), _rows(of_keys)
        mask = None
        if device.type == _BOUNDED_DEVICE or not is_real.all():
            mask = upload(torch.from_numpy(is_real[:, None, None]), device)
        yield _Grid(
            upload(torch.from_numpy(rows), device), upload(torch.from_numpy(seen), device), mask
        )


def _spans(packing: Packing) -> Iterator[tuple[int, int]]:
    """Where each sequence starts and ends."""
    return pairwise(accumulate(packing.lengths, initial=0))


def _rounded(length: int) -> int:
    """A length up to a multiple; one token alone stays so."""
    return length + (-length % _LENGTH_MULTIPLE if length > 1 else 0)


def _rows(
    spans: Sequence[tuple[int, int]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Row numbers of sequences of one rounded length, and which are no repetition."""
    starts, ends = np.array(spans).T[:, :, None]
    rows = starts + np.arange(_rounded(int(ends[0, 0] - starts[0, 0])))
    return np.minimum(rows, ends - 1), rows < ends


def has_flash_kernel(query: torch.Tensor) -> bool:
    """Whether torch's flash kernel takes queries like these, `(tokens, heads, head_dim)`.

    The kernel reads 16 bytes at a time and may fault elsewhere (pytorch#194818): each head of each
    token must begin at a multiple of them. Keys and values are parts of the same tensors, or of
    such with the same heads.
    """
    if not (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and query.shape[-1] % 8 == 0
        and all(place % 8 == 0 for place in (query.storage_offset(), *query.stride()[:-1]))
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    ):
        return False
    from . import flash_attention

    return flash_attention.IS_COMPLETE


def split_heads(states: torch.Tensor, parts: int, heads: int) -> tuple[torch.Tensor, ...]:
    """`(tokens, parts * heads * head_dim)` → each part as `(tokens, heads, head_dim)`, no copy."""
    return states.view(len(states), parts, heads, -1).unbind(1)


# queries of a block; rows are padded to this multiple on a CPU, so no block is cut short there
_BLOCK = 64


class LocalAttention:
    """Local attention in one batch; every local layer of its forward pass uses it.

    Where there is no flash kernel, the whole batch is cut into blocks of queries, whatever its
    sequences' lengths: a block's keys are its own tokens and a window on either side, and a mask
    keeps to the window and to the sequence. The cost grows with the number of tokens, not with the
    square of a sequence's length.

    :param packing: where the sequences lie.
    :param window: a token sees those of its sequence that are at most this many tokens away.
    :param scale: factor on the dot products.
    """

    def __init__(self, packing: Packing, window: int, *, scale: float) -> None:
        self._packing = packing
        self._window = window
        self._scale = scale
        self._mask: torch.Tensor | None = None

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend.

        :param query: `(tokens, heads, head_dim)`, like ``key`` and ``value``; rows after the last
            sequence may follow, and their results mean nothing.
        :returns: `(tokens, heads, head_dim)`.
        """
        packing, scale = self._packing, self._scale
        if packing.longest <= self._window + 1:
            return packed_attention(query, key, value, packing, packing, scale=scale)
        if has_flash_kernel(query):
            from .flash_attention import flash_attention

            window = (self._window, self._window)
            return flash_attention(query, key, value, packing, packing, scale=scale, window=window)
        return self._in_blocks(query, key, value)

    def _in_blocks(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        tokens = len(query)
        blocks = -(-tokens // _BLOCK)
        missing = blocks * _BLOCK - tokens
        around = (0, 0, 0, 0, self._window, self._window + missing)
        # views of `(blocks, heads, keys, head_dim)`, in which neighbors overlap
        keys, values = (
            pad(states, around).unfold(0, _BLOCK + 2 * self._window, _BLOCK).transpose(2, 3)
            for states in (key, value)
        )
        queries = pad(query, (0, 0, 0, 0, 0, missing)).unflatten(0, (blocks, _BLOCK))
        if self._mask is None:
            self._mask = self._make_mask(blocks, query)
        attended = scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, attn_mask=self._mask, scale=self._scale
        )
        return attended.transpose(1, 2).flatten(0, 1)[:tokens]

    def _make_mask(self, blocks: int, like: torch.Tensor) -> torch.Tensor:
        """What is added to the dot products, `(blocks, 1, queries, keys)`: 0 or minus infinity."""
        lengths, window, width = self._packing.lengths, self._window, _BLOCK + 2 * self._window
        # padding is a sequence of its own: it sees itself, so that no softmax is over nothing
        numbers = np.full(blocks * _BLOCK + 2 * window, -1, dtype=np.int32)
        numbers[window : window + sum(lengths)] = np.repeat(np.arange(len(lengths)), lengths)
        sequence = upload(torch.from_numpy(numbers), like.device)
        keys = sequence.unfold(0, width, _BLOCK).unsqueeze(1)
        queries = sequence.narrow(0, window, blocks * _BLOCK).view(blocks, _BLOCK, 1)
        distance = torch.arange(width) - window - torch.arange(_BLOCK).unsqueeze(1)
        is_near = upload(distance.abs() <= window, like.device)
        seen = (keys == queries) & is_near
        return torch.where(seen, 0.0, -torch.inf).to(like.dtype).unsqueeze(1)
