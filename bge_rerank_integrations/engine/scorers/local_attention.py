"""Attention within a window around each token, over packed sequences.

On CUDA in half precision torch's flash kernel takes the window. Elsewhere the whole batch is cut
into blocks of queries, whatever its sequences' lengths: a block's keys are its own tokens and a
window on either side, and a mask keeps to the window and to the sequence. The cost grows with the
number of tokens, not with the square of a sequence's length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from bge_rerank_integrations.engine.scorers.attention import has_flash_kernel, packed_attention
from bge_rerank_integrations.engine.scorers.packing import Packing, upload

# queries of a block; rows are padded to this multiple on a CPU, so no block is cut short there
_BLOCK = 64


class LocalAttention:
    """Local attention in one batch; every local layer of its forward pass uses it.

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
            from bge_rerank_integrations.engine.scorers.flash_attention import flash_attention

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
