"""Padding-free attention: sequences lie one behind the other, each attends to itself only.

On CUDA in half precision this is torch's flash kernel; elsewhere one scaled-dot-product call per
run of equally long sequences, or in bfloat16 on the CPU two matrix products a sequence.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from bge_rerank_integrations.engine.scorers.packing import Packing, common_runs
from bge_rerank_integrations.engine.scorers.product_attention import attention_by_products, pays


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
    if _has_flash_kernel(query):
        from bge_rerank_integrations.engine.scorers.flash_attention import flash_attention

        return flash_attention(query, key, value, queries, keys, scale=scale, causal=causal)
    grouped = query.shape[1] != key.shape[1]
    output = torch.empty_like(query)
    query_start = key_start = 0
    for query_length, key_length, count in common_runs(queries, keys):
        query_end = query_start + count * query_length
        key_end = key_start + count * key_length
        states = (
            _by_head(query[query_start:query_end], count),
            _by_head(key[key_start:key_end], count),
            _by_head(value[key_start:key_end], count),
        )
        if pays(states[0]) and not (causal or grouped):
            each = [attention_by_products(*one, scale) for one in zip(*states, strict=True)]
            attended = torch.stack(each)
        else:
            attended = scaled_dot_product_attention(
                *states, is_causal=causal, scale=scale, enable_gqa=grouped
            )
        output[query_start:query_end] = attended.transpose(1, 2).flatten(0, 1)
        query_start, key_start = query_end, key_end
    output[query_start:] = 0
    return output


def _has_flash_kernel(query: torch.Tensor) -> bool:
    if not (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    ):
        return False
    from bge_rerank_integrations.engine.scorers import flash_attention

    return flash_attention.IS_COMPLETE


def _by_head(packed: torch.Tensor, count: int) -> torch.Tensor:
    """`(count * length, heads, head_dim)` → `(count, heads, length, head_dim)`, without a copy."""
    return packed.view(count, -1, *packed.shape[1:]).transpose(1, 2)
