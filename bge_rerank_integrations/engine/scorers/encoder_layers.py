"""A transformer layer of BERT's and RoBERTa's kind over packed sequences."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from bge_rerank_integrations.engine.scorers.attention import packed_attention
from bge_rerank_integrations.engine.scorers.encoder_shape import EncoderShape
from bge_rerank_integrations.engine.scorers.linear import rows_to_fill
from bge_rerank_integrations.engine.scorers.packing import Packing
from bge_rerank_integrations.engine.scorers.parameters import Parameters


class _Block:
    """What every layer does with the attended values.

    :param parameters: the layer's.
    """

    def __init__(self, parameters: Parameters, shape: EncoderShape) -> None:
        hidden, wide, eps = shape.hidden_size, shape.intermediate_size, shape.layer_norm_eps
        self._heads = shape.num_attention_heads
        self._scale = (hidden // self._heads) ** -0.5
        self._attention_output = parameters.linear(hidden, hidden, "attention.output.dense")
        self._attention_norm = parameters.norm("attention.output.LayerNorm", hidden, eps)
        self._intermediate = parameters.linear(hidden, wide, "intermediate.dense")
        self._output = parameters.linear(wide, hidden, "output.dense")
        self._norm = parameters.norm("output.LayerNorm", hidden, eps)

    def _finish(self, attended: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Output projection, feed-forward and their residual sums, `(tokens, hidden)`.

        :param attended: `(tokens, heads, head_dim)`.
        :param rows: the layer's input, `(tokens, hidden)`.
        """
        states = self._attention_norm(self._attention_output.add(attended.flatten(1), rows))
        return self._norm(self._output.add(self._intermediate.gelu(states), states))

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        """`(tokens, hidden)` → `(tokens, heads, head_dim)`, without a copy."""
        return states.view(len(states), self._heads, -1)


class Layer(_Block):
    """A layer that every token passes."""

    def __init__(self, parameters: Parameters, shape: EncoderShape) -> None:
        super().__init__(parameters, shape)
        names = ("query", "key", "value")
        self._query_key_value = parameters.module("attention.self").linear(
            shape.hidden_size, shape.hidden_size, *names
        )

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """States of the packed tokens after this layer; both `(tokens, hidden)`."""
        query, key, value = map(self._by_head, self._query_key_value(hidden).chunk(3, dim=1))
        attended = packed_attention(query, key, value, packing, packing, scale=self._scale)
        return self._finish(attended, hidden)


class LastLayer(_Block):
    """The last layer: every token is a key and a value, the first of each sequence asks."""

    def __init__(self, parameters: Parameters, shape: EncoderShape) -> None:
        super().__init__(parameters, shape)
        attention, hidden = parameters.module("attention.self"), shape.hidden_size
        self._query = attention.linear(hidden, hidden, "query")
        self._key_value = attention.linear(hidden, hidden, "key", "value")

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """States of each sequence's first token; `(tokens, hidden)` → `(n, hidden)`.

        On a CPU, rows of no use follow.
        """
        count = len(packing.lengths)
        firsts = Packing.of([1] * count, hidden.device)
        filler = (0, rows_to_fill(count, hidden.device))
        rows = hidden[pad(packing.starts[:-1], filler).long()]
        key, value = map(self._by_head, self._key_value(hidden).chunk(2, dim=1))
        query = self._by_head(self._query(rows))
        attended = packed_attention(query, key, value, firsts, packing, scale=self._scale)
        return self._finish(attended, rows)
