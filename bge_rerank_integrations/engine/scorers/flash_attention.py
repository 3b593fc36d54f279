"""torch's flash kernel for packed sequences, on CUDA in half precision.

Its import takes a second, because TorchDynamo comes along: only who uses it imports this module.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from .attention import Packing

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    _PARAMETERS = frozenset[str]()
else:
    _PARAMETERS = frozenset(inspect.signature(varlen_attn).parameters)

# since torch 2.11
IS_COMPLETE = {"scale", "window_size"} <= _PARAMETERS
# The kernel itself lets several heads of the queries share one of the keys. torch 2.12 wants to be
# told so; torch 2.11 has no parameter for it.
TAKES_ENABLE_GQA = "enable_gqa" in _PARAMETERS


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Packing,
    keys: Packing,
    *,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    """Attention within each sequence in one call; parameters and result as in ``attention``.

    :param window: how many tokens before and behind itself a token sees; -1 means all.
    """
    told: dict[str, Any] = {}
    if TAKES_ENABLE_GQA:
        told["enable_gqa"] = query.shape[1] != key.shape[1]
    attended: torch.Tensor = varlen_attn(
        query,
        key,
        value,
        queries.starts,
        keys.starts,
        queries.longest,
        keys.longest,
        scale=scale,
        window_size=window,
        **told,
    )  # type: ignore[assignment]  # a tuple only with return_aux
    return attended
