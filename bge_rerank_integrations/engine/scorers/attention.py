"""Padding-free attention: sequences lie one behind the other, each attends to itself only.

On CUDA in half precision this is ``torch.nn.attention.varlen`` (the flash kernel, from torch 2.12
on); elsewhere one scaled-dot-product call per run of equally long sequences, or in bfloat16 on the
CPU two matrix products a sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from bge_rerank_integrations.engine.scorers.transfer import upload

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    _VARLEN_PARAMETERS = frozenset[str]()
else:
    _VARLEN_PARAMETERS = frozenset(inspect.signature(varlen_attn).parameters)

# the parameters came one after the other in torch 2.10 to 2.12
_HAS_VARLEN = {"scale", "window_size", "enable_gqa"} <= _VARLEN_PARAMETERS

# shorter sequences and smaller heads are as fast in torch's kernel, which is one call instead of
# several and keeps the scores in float32
_PRODUCTS_FROM_TOKENS = 48
_PRODUCTS_FROM_HEAD_DIM = 64
# oneDNN compiles a product for every length, and keeps it: lengths are filled up to a multiple
_PRODUCT_TOKENS = 16
# sums of exponentials whose products with values neither overflow nor vanish
_SMALLEST_SUM, _LARGEST_SUM = 1e-25, 1e25


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each sequence lies in a packed batch.

    :param lengths: tokens of each sequence, in order.
    :param starts: `(n + 1,)` int32 on the batch's device: each sequence's first token, and the end.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Packing:
        """Lay sequences of these lengths one behind the other."""
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(tuple(lengths), upload(starts, device))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)


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
    grouped = query.shape[1] != key.shape[1]
    if _has_flash_kernel(query):
        attended: torch.Tensor = varlen_attn(
            query,
            key,
            value,
            queries.starts,
            keys.starts,
            queries.longest,
            keys.longest,
            scale=scale,
            enable_gqa=grouped,
            window_size=(-1, 0) if causal else (-1, -1),
        )  # type: ignore[assignment]  # a tuple only with return_aux
        return attended
    # torch's kernel computes in float32 here, with a product that is slow on AMD
    by_products = (
        query.dtype is torch.bfloat16
        and query.device.type == "cpu"
        and query.shape[-1] >= _PRODUCTS_FROM_HEAD_DIM
        and not (causal or grouped)
    )
    output = torch.empty_like(query)
    query_start = key_start = 0
    for query_length, key_length, count in _common_runs(queries, keys):
        query_end = query_start + count * query_length
        key_end = key_start + count * key_length
        states = (
            _by_head(query[query_start:query_end], count),
            _by_head(key[key_start:key_end], count),
            _by_head(value[key_start:key_end], count),
        )
        if by_products and query_length >= _PRODUCTS_FROM_TOKENS:
            each = [_attention_by_products(*one, scale) for one in zip(*states, strict=True)]
            attended = torch.stack(each)
        else:
            attended = scaled_dot_product_attention(
                *states, is_causal=causal, scale=scale, enable_gqa=grouped
            )
        output[query_start:query_end] = attended.transpose(1, 2).flatten(0, 1)
        query_start, key_start = query_end, key_end
    output[query_start:] = 0
    return output


def _attention_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """One sequence's attention as oneDNN's two products, divided by the softmax's sums at the end.

    Leaving out the subtraction of the maximum, and dividing `(length, head_dim)` instead of
    `(length, length)`, makes the softmax three times as fast. bfloat16 reaches as far as float32,
    so exp(x) loses nothing unless x is far from 0; then torch's kernel does it.

    :param query: `(heads, length, head_dim)`, like ``key`` and ``value``.
    :returns: `(heads, length, head_dim)`.
    """
    length = query.shape[1]
    filler = (0, 0, 0, -length % _PRODUCT_TOKENS)
    # values of 0: whatever weight the filler has, it adds nothing
    q, k, v = (pad(states, filler) for states in (query, key, value))
    # beta=0: nothing is read from the tensor that stands for a sum
    weights = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale).exp_()
    sums = weights[:, :length, :length].sum(-1, keepdim=True)
    lowest, highest = sums.aminmax()
    if not (lowest > _SMALLEST_SUM and highest < _LARGEST_SUM):
        return scaled_dot_product_attention(query[None], key[None], value[None], scale=scale)[0]
    return torch.bmm(weights, v)[:, :length].div_(sums)


def _has_flash_kernel(query: torch.Tensor) -> bool:
    return (
        _HAS_VARLEN
        and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _common_runs(queries: Packing, keys: Packing) -> Iterator[tuple[int, int, int]]:
    """(query length, key length, count) of each run in which both lengths stay the same."""
    pairs = zip(queries.lengths, keys.lengths, strict=True)
    for (query_length, key_length), run in groupby(pairs):
        yield query_length, key_length, sum(1 for _ in run)


def _by_head(packed: torch.Tensor, count: int) -> torch.Tensor:
    """`(count * length, heads, head_dim)` → `(count, heads, length, head_dim)`, without a copy."""
    return packed.view(count, -1, *packed.shape[1:]).transpose(1, 2)
