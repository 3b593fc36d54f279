"""Encoders of the BERT and RoBERTa families, without padding.

Every sequence's tokens lie one behind the other, so linear layers see real tokens only. The head
reads the first token alone: in the last layer only those rows get a query, an attention output and
a feed-forward pass. Both are exact; a padded pass gives the same logits to float rounding.

The head computes in float32 always: a bfloat16 logit of 9 would be a multiple of 1/16, and ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from bge_rerank_integrations.engine.scorers.attention import Packing, packed_attention
from bge_rerank_integrations.engine.scorers.linear import Linear, make_linear, rows_to_fill
from bge_rerank_integrations.engine.scorers.transfer import download, upload
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair

# transformers' model_type → whether positions count from padding_idx + 1 (fairseq's convention)
PACKABLE = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}


class EncoderScorer:
    """Scores packed batches with a ``*ForSequenceClassification`` of one label.

    :param model: of a model type in ``PACKABLE``, in eval mode on its device; its layers are taken
        over, so it must not be used afterwards.
    :param passage_type: token type of the passage (1 in BERT, 0 in RoBERTa).
    :param dtype: precision to compute in; None leaves it as the model was loaded. Layers are
        converted one by one: a model whose weights still lie in a mapped file is in memory once.
    """

    padded = False

    def __init__(
        self, model: PreTrainedModel, passage_type: int, dtype: torch.dtype | None = None
    ) -> None:
        base: Any = model.base_model
        exact_gelu = model.config.hidden_act == "gelu"
        *layers, last = base.encoder.layer
        self._layers = [_Layer(layer.to(dtype), exact_gelu) for layer in layers]
        self._last_layer = _LastLayer(last.to(dtype), exact_gelu)
        self._embeddings = base.embeddings.to(dtype)
        self._classifier: Any = model.classifier.float()
        self._pooler = None if base.pooler is None else base.pooler.float()
        self._passage_type = passage_type
        self._padding_index: int | None = None
        if PACKABLE[model.config.model_type]:
            self._padding_index = base.embeddings.padding_idx

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenizedPair]) -> npt.ArrayLike:
        """Score one packed batch.

        :param batch: pairs in any order; neighbours of equal length are fastest.
        :returns: float32 logits, `(n, 1)`; on CUDA still being computed.
        """
        device: torch.device = self._embeddings.word_embeddings.weight.device
        packing = Packing.of([len(pair) for pair in batch], device)
        hidden = self._embed(batch, device)
        for layer in self._layers:
            hidden = layer.forward(hidden, packing)
        first = self._last_layer.forward(hidden, packing)
        return download(self._classify(first))

    def _embed(self, batch: Sequence[TokenizedPair], device: torch.device) -> torch.Tensor:
        """Embeddings of the packed tokens, `(tokens, hidden)`; on a CPU, rows of no use follow."""
        ids = np.concatenate([pair.ids for pair in batch])
        positions = np.concatenate([self._positions(pair.ids) for pair in batch])
        types = np.concatenate([self._types(pair) for pair in batch])
        packed = torch.from_numpy(np.stack([ids, types, positions]).astype(np.int64))
        packed = nn.functional.pad(packed, (0, rows_to_fill(len(ids), device)))
        rows = upload(packed, device)
        embedded: torch.Tensor = self._embeddings(
            input_ids=rows[0:1], token_type_ids=rows[1:2], position_ids=rows[2:3]
        )
        return embedded[0]

    def _positions(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Positions of one sequence; a literal padding token in a text keeps padding's position."""
        if self._padding_index is None:
            return np.arange(len(ids))
        real = ids != self._padding_index
        positions: npt.NDArray[np.int64] = np.cumsum(real) * real + self._padding_index
        return positions

    def _types(self, pair: TokenizedPair) -> npt.NDArray[np.int64]:
        return np.where(np.arange(len(pair)) < pair.passage_start, 0, self._passage_type)

    def _classify(self, first: torch.Tensor) -> torch.Tensor:
        """Logits `(n, 1)` of the first tokens' states `(n, hidden)`."""
        # the heads pool token 0 of (n, tokens, hidden) themselves
        states = first.float().unsqueeze(1)
        if self._pooler is not None:
            states = self._pooler(states)
        logits: torch.Tensor = self._classifier(states)
        return logits


class _Block:
    """What every transformer layer does with the attended values.

    :param layer: transformers' layer; its weights are taken over.
    :param exact_gelu: its activation is GELU by the error function, which linear layers take along.
    """

    def __init__(self, layer: Any, exact_gelu: bool) -> None:
        attention = layer.attention.self
        self._heads: int = attention.num_attention_heads
        self._scale: float = attention.scaling
        self._attention_output = _take(layer.attention.output.dense)
        self._attention_norm = layer.attention.output.LayerNorm
        self._intermediate = _take(layer.intermediate.dense)
        self._activation = None if exact_gelu else layer.intermediate.intermediate_act_fn
        self._output = _take(layer.output.dense)
        self._norm = layer.output.LayerNorm

    def _finish(self, attended: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Output projection, feed-forward and their residual sums, `(tokens, hidden)`.

        :param attended: `(tokens, heads, head_dim)`.
        :param rows: the layer's input, `(tokens, hidden)`.
        """
        states = self._attention_norm(self._attention_output.add(attended.flatten(1), rows))
        if self._activation is None:
            wide = self._intermediate.gelu(states)
        else:
            wide = self._activation(self._intermediate(states))
        result: torch.Tensor = self._norm(self._output.add(wide, states))
        return result

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.view(len(rows), self._heads, -1)


class _Layer(_Block):
    """One transformer layer over packed rows, with query, key and value in one product."""

    def __init__(self, layer: Any, exact_gelu: bool) -> None:
        super().__init__(layer, exact_gelu)
        attention = layer.attention.self
        self._query_key_value = _take(attention.query, attention.key, attention.value)

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """States of the packed tokens after this layer; both `(tokens, hidden)`."""
        query, key, value = map(self._by_head, self._query_key_value(hidden).chunk(3, dim=1))
        attended = packed_attention(query, key, value, packing, packing, scale=self._scale)
        return self._finish(attended, hidden)


class _LastLayer(_Block):
    """The last layer: every token is a key and a value, the first of each sequence asks."""

    def __init__(self, layer: Any, exact_gelu: bool) -> None:
        super().__init__(layer, exact_gelu)
        attention = layer.attention.self
        self._query = _take(attention.query)
        self._key_value = _take(attention.key, attention.value)

    def forward(self, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """States of each sequence's first token; `(tokens, hidden)` → `(n, hidden)`."""
        count = len(packing.lengths)
        firsts = Packing.of([1] * count, hidden.device)
        filler = (0, rows_to_fill(count, hidden.device))
        rows = hidden[nn.functional.pad(packing.starts[:-1], filler).long()]
        key, value = map(self._by_head, self._key_value(hidden).chunk(2, dim=1))
        query = self._by_head(self._query(rows))
        attended = packed_attention(query, key, value, firsts, packing, scale=self._scale)
        return self._finish(attended, rows)[:count]


def _take(*linears: nn.Linear) -> Linear:
    """One layer with the outputs of several, one after the other.

    The originals are emptied, so that the weights are held once.
    """
    weights = [linear.weight.detach() for linear in linears]
    biases = [linear.bias.detach() for linear in linears]
    taken = make_linear(
        weights[0] if len(weights) == 1 else torch.cat(weights),
        biases[0] if len(biases) == 1 else torch.cat(biases),
    )
    for linear in linears:
        linear.to("meta")
    return taken
