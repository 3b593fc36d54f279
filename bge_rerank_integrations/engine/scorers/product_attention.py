"""Attention in bfloat16 on the CPU, where torch's kernel computes its products in float32."""

from __future__ import annotations

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

# shorter sequences and smaller heads are as fast in torch's kernel, which is one call instead of
# several and keeps the scores in float32
_FROM_TOKENS = 48
_FROM_HEAD_DIM = 64
# oneDNN compiles a product for every length, and keeps it: lengths are filled up to a multiple
_FILL_TO = 16
# sums of exponentials whose products with values neither overflow nor vanish
_SMALLEST_SUM, _LARGEST_SUM = 1e-25, 1e25


def pays(query: torch.Tensor) -> bool:
    """Whether sequences like this one are faster by products.

    :param query: `(..., length, head_dim)`.
    """
    return (
        query.dtype is torch.bfloat16
        and query.device.type == "cpu"
        and query.shape[-1] >= _FROM_HEAD_DIM
        and query.shape[-2] >= _FROM_TOKENS
    )


def attention_by_products(
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
    filler = (0, 0, 0, -length % _FILL_TO)
    # values of 0: whatever weight the filler has, it adds nothing
    q, k, v = (pad(states, filler) for states in (query, key, value))
    # beta=0: nothing is read from the tensor that stands for a sum
    weights = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale).exp_()
    sums = weights[:, :length, :length].sum(-1, keepdim=True)
    lowest, highest = sums.aminmax()
    if not (lowest > _SMALLEST_SUM and highest < _LARGEST_SUM):
        return scaled_dot_product_attention(query[None], key[None], value[None], scale=scale)[0]
    return torch.bmm(weights, v)[:, :length].div_(sums)
