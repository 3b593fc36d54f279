"""Attention on processors: torch's kernel, or in bfloat16 two matmuls for a group of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention

# shorter sequences and smaller heads are as fast in torch's kernel, which is one call instead of
# several and keeps the scores in float32
_FROM_TOKENS = 40
_FROM_HEAD_DIM = 32
# oneDNN caches one compiled matmul per length; lengths are padded to a multiple of this
_LENGTH_MULTIPLE = 16
# softmax weights of sequences that are computed together: they stay in a core's cache
_GROUP_WEIGHTS = 1 << 20
_GROUP_SIZES = (8, 4, 2, 1)
# sums of exponentials whose products with values neither overflow nor vanish
_SMALLEST_SUM, _LARGEST_SUM = 1e-25, 1e25


def fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    count: int,
    scale: float,
    *,
    causal: bool = False,
) -> torch.Tensor:
    """Attention of ``count`` equally long sequences by torch's kernel."""
    attended = scaled_dot_product_attention(
        _by_head(query, count),
        _by_head(key, count),
        _by_head(value, count),
        is_causal=causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.transpose(1, 2).flatten(0, 1)


def _by_head(packed: torch.Tensor, count: int) -> torch.Tensor:
    """`(count * length, heads, head_dim)` → `(count, heads, length, head_dim)`, without a copy."""
    return packed.view(count, -1, *packed.shape[1:]).transpose(1, 2)


def takes_matmul(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether plain matmuls are faster than torch's kernel for long sequences of such states.

    :param query: `(tokens, heads, head_dim)`, like ``key``.
    """
    return (
        query.dtype is torch.bfloat16
        and query.device.type == "cpu"
        and query.shape[1] == key.shape[1]
        and query.shape[2] >= _FROM_HEAD_DIM
    )


def _padded(length: int) -> int:
    """The length with which matmuls compute a sequence; a short one is left to torch's kernel."""
    return length if length < _FROM_TOKENS else length + -length % _LENGTH_MULTIPLE


def groups(lengths: Sequence[int], heads: int) -> Iterator[list[int]]:
    """Cut a batch into neighbors of one padded length that are computed together."""
    for padded, run in groupby(lengths, _padded):
        rest = list(run)
        most = max(_GROUP_WEIGHTS // (heads * padded**2), 1)
        while padded >= _FROM_TOKENS and rest:
            # oneDNN caches one compiled matmul per number of sequences, too
            size = next(size for size in _GROUP_SIZES if size <= min(most, len(rest)))
            yield rest[:size]
            rest = rest[size:]
        if rest:
            yield rest


def grouped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    scale: float,
) -> list[torch.Tensor]:
    """Bfloat16 attention of a group of sequences on the CPU as two oneDNN matmuls.

    torch's kernel computes them in float32. The softmax's sums divide the result at the end.

    Leaving out the subtraction of the maximum, and dividing `(length, head_dim)` instead of
    `(length, length)`, makes the softmax three times as fast. bfloat16 reaches as far as float32,
    so exp(x) loses nothing unless x is far from 0; then torch's kernel does it.

    :param query: `(tokens, heads, head_dim)`, like ``key`` and ``value``.
    :param lengths: tokens of each sequence; their padded length is the same.
    :returns: for each sequence `(length, heads, head_dim)`.
    """
    length = _padded(lengths[0])
    if length < _FROM_TOKENS:
        return [fused_attention(query, key, value, len(lengths), scale)]
    q, k, v = (_pad(states, lengths, length) for states in (query, key, value))
    # beta=0: nothing is read from the tensor that stands for a sum
    weights = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale).exp_()
    for each, n_real in zip(weights.view(len(lengths), -1, length, length), lengths, strict=True):
        each[:, :, n_real:] = 0
    sums = weights.sum(-1, keepdim=True)
    lowest, highest = sums.aminmax()
    if not (lowest > _SMALLEST_SUM and highest < _LARGEST_SUM):
        sequences = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
        return [fused_attention(*each, count=1, scale=scale) for each in sequences]
    attended = torch.bmm(weights, v).div_(sums).view(len(lengths), -1, length, v.shape[-1])
    return [
        each[:, :n_real].transpose(0, 1) for each, n_real in zip(attended, lengths, strict=True)
    ]


def _pad(states: torch.Tensor, lengths: list[int], length: int) -> torch.Tensor:
    """`(tokens, heads, head_dim)` → `(sequences * heads, length, head_dim)`, padded with 0."""
    _, heads, head_dim = states.shape
    padded = states.new_empty(len(lengths), heads, length, head_dim)
    for row, each in zip(padded, states.split(lengths), strict=True):
        row[:, : len(each)] = each.transpose(0, 1)
        row[:, len(each) :] = 0
    return padded.flatten(0, 1)
