"""Encoders of the BERT and RoBERTa families: embeddings, layers and head over packed sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import embedding

from ..tokenization.pairs import TokenSequence
from .attention import Packing, packed_attention, positions_of, split_heads, upload
from .encoder_configs import BertConfig
from .heads import Head, Pooling, first_tokens, mean_pool
from .linear import n_padding_rows
from .weights import Weights


class Bert:
    """Embeddings and layers; an :class:`~.encoder.EncoderBody`.

    :param weights: the body's, on the device and in the precision to compute in.
    :param config: its sizes.
    :param passage_type: token type of the passage (1 in BERT, 0 in RoBERTa).
    :param pooling: what becomes of the last layer's states.
    :raises ModelLoadError: if a tensor is missing or of another config.
    """

    def __init__(
        self, weights: Weights, config: BertConfig, *, passage_type: int, pooling: Pooling
    ) -> None:
        self._device = weights.device
        self._embeddings = _Embeddings(weights.module("embeddings"), config, passage_type)
        *before, last = (
            weights.module(f"encoder.layer.{n}") for n in range(config.num_hidden_layers)
        )
        self._layers = [_Layer(layer, config) for layer in before]
        kind = _LastLayer if pooling == "cls" else _MeanLayer
        self._last_layer = kind(last, config)

    def __call__(self, batch: Sequence[TokenSequence]) -> torch.Tensor:
        """Pooled states `(n, hidden)`; on a CPU, padding rows follow."""
        packing = Packing.from_lengths([len(sequence) for sequence in batch], self._device)
        hidden = self._embeddings(batch)
        for layer in self._layers:
            hidden = layer.forward(hidden, packing)
        return self._last_layer.forward(hidden, packing)


class _Embeddings:
    """Sums of each token's word, type and position embeddings, normalized.

    :param weights: the module's.
    :param passage_type: token type of the passage.
    """

    def __init__(self, weights: Weights, config: BertConfig, passage_type: int) -> None:
        sizes = {
            "word_embeddings": config.vocab_size,
            "token_type_embeddings": config.type_vocab_size,
            "position_embeddings": config.max_position_embeddings,
        }
        hidden = config.hidden_size
        self._tables = [weights.read(f"{n}.weight", size, hidden) for n, size in sizes.items()]
        self._norm = weights.norm("LayerNorm", hidden, config.layer_norm_eps)
        self._device = weights.device
        self._passage_type = passage_type
        self._padding_index = config.padding_index

    def __call__(self, batch: Sequence[TokenSequence]) -> torch.Tensor:
        """States `(tokens, hidden)`; on a CPU, padding rows follow."""
        rows = upload(torch.from_numpy(self._rows(batch)), self._device)
        words, types, positions = map(embedding, rows, self._tables)
        return self._norm.add(words.add_(types), positions)

    def _rows(self, batch: Sequence[TokenSequence]) -> npt.NDArray[np.int32]:
        """Ids, types and positions of all tokens, `(3, tokens)`."""
        ids = np.concatenate([sequence.ids for sequence in batch])
        lengths = np.array([len(sequence) for sequence in batch])
        passages = np.array([sequence.passage_start for sequence in batch])
        positions = positions_of(lengths)
        rows = np.zeros((3, len(ids) + n_padding_rows(len(ids), self._device)), dtype=np.int32)
        rows[0, : len(ids)] = ids
        rows[1, : len(ids)] = (positions >= np.repeat(passages, lengths)) * self._passage_type
        rows[2, : len(ids)] = positions
        if self._padding_index is not None:
            # a literal padding token in a text keeps padding's position, and is not counted
            real = ids != self._padding_index
            counted = np.cumsum(real)
            starts = np.cumsum(lengths) - lengths
            counted_before = np.repeat(counted[starts] - real[starts], lengths)
            rows[2, : len(ids)] = (counted - counted_before) * real + self._padding_index
        return rows


class _Block:
    """The part of a layer behind its attention.

    :param weights: the layer's.
    """

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        hidden, wide, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self._heads = config.num_attention_heads
        self._scale = (hidden // self._heads) ** -0.5
        self._attention_output = weights.linear(hidden, hidden, "attention.output.dense")
        self._attention_norm = weights.norm("attention.output.LayerNorm", hidden, eps)
        self._intermediate = weights.linear(hidden, wide, "intermediate.dense")
        self._output = weights.linear(wide, hidden, "output.dense")
        self._norm = weights.norm("output.LayerNorm", hidden, eps)

    def _finish(self, attended: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Output projection, feed-forward and their residual sums, `(tokens, hidden)`.

        :param attended: `(tokens, heads, head_dim)`.
        :param rows: the layer's input, `(tokens, hidden)`.
        """
        states = self._attention_norm.of_sum(self._attention_output, attended.flatten(1), rows)
        return self._norm.of_sum(self._output, self._intermediate.gelu(states), states)


class _Layer(_Block):
    """A layer that every token passes."""

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        super().__init__(weights, config)
        names = ("query", "key", "value")
        self._query_key_value = weights.module("attention.self").linear(
            config.hidden_size, config.hidden_size, *names
        )
        self._attention_dtype = weights.attention_dtype

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """States of the packed tokens after this layer; both `(tokens, hidden)`."""
        states = self._query_key_value(hidden).to(self._attention_dtype)
        query, key, value = split_heads(states, 3, self._heads)
        attended = packed_attention(query, key, value, packing, packing, scale=self._scale)
        return self._finish(attended, hidden)


class _MeanLayer(_Layer):
    """The last layer, with the mean over each sequence behind it."""

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """`(tokens, hidden)` → `(n, hidden)`; on a CPU, padding rows follow."""
        return mean_pool(super().forward(hidden, packing), packing)


class _LastLayer(_Block):
    """The last layer: every token is a key and a value, only first tokens are queries."""

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        super().__init__(weights, config)
        attention, hidden = weights.module("attention.self"), config.hidden_size
        self._query = attention.linear(hidden, hidden, "query")
        self._key_value = attention.linear(hidden, hidden, "key", "value")

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """States of each sequence's first token; `(tokens, hidden)` → `(n, hidden)`.

        On a CPU, padding rows follow.
        """
        numbers, firsts = first_tokens(packing)
        rows = hidden[numbers]
        key, value = split_heads(self._key_value(hidden), 2, self._heads)
        (query,) = split_heads(self._query(rows), 1, self._heads)
        attended = packed_attention(query, key, value, firsts, packing, scale=self._scale)
        return self._finish(attended, rows)


def bert_head(weights: Weights, config: BertConfig) -> Head:
    """The head of BERT's and RoBERTa's sequence classification: a layer, tanh, another layer.

    :param weights: the whole checkpoint's.
    """
    hidden, layout = config.hidden_size, config.layout
    weights = weights.in_float32()
    dense = weights.linear(hidden, hidden, layout.dense)
    return Head("cls", (dense, torch.tanh, weights.linear(hidden, 1, layout.logits)))
