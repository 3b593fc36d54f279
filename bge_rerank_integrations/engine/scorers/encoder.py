"""Encoders of the BERT and RoBERTa families, without padding.

Every sequence's tokens lie one behind the other, so linear layers see real tokens only. The head
reads the first token alone: in the last layer only those rows get a query, an attention output and
a feed-forward pass. Both are exact; a padded pass gives the same logits to float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from bge_rerank_integrations.engine.attention import Packing, packed_attention
from bge_rerank_integrations.engine.batching import TokenizedPair
from bge_rerank_integrations.engine.scorers import Logits

# transformers' model_type → whether positions count from padding_idx + 1 (fairseq's convention)
PACKABLE = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}


class EncoderScorer:
    """Scores packed batches with a ``*ForSequenceClassification`` of one label.

    :param model: of a model type in ``PACKABLE``, in eval mode on its device; its layers are taken
        over, so it must not be used afterwards.
    :param passage_type: token type of the passage (1 in BERT, 0 in RoBERTa).
    """

    padded = False

    def __init__(self, model: PreTrainedModel, passage_type: int) -> None:
        base: Any = model.base_model
        self._classifier: Any = model.classifier
        self._embeddings = base.embeddings
        self._pooler = base.pooler
        self._layers = [_Layer(layer) for layer in base.encoder.layer]
        self._passage_type = passage_type
        self._padding_index: int | None = None
        if PACKABLE[model.config.model_type]:
            self._padding_index = base.embeddings.padding_idx

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenizedPair]) -> Logits:
        """Score one packed batch.

        :param batch: pairs in any order; neighbours of equal length are fastest.
        :returns: float32 logits, `(n, 1)`.
        """
        device: torch.device = self._embeddings.word_embeddings.weight.device
        packing = Packing.of([len(pair) for pair in batch], device)
        hidden = self._embed(batch, device)
        firsts = Packing.of([1] * len(batch), device)
        first_rows = packing.starts[:-1].long()
        for layer in self._layers[:-1]:
            hidden = layer.forward(hidden, hidden, packing, packing)
        hidden = self._layers[-1].forward(hidden[first_rows], hidden, firsts, packing)
        logits: Logits = self._classify(hidden).float().cpu().numpy()
        return logits

    def _embed(self, batch: Sequence[TokenizedPair], device: torch.device) -> torch.Tensor:
        """Embeddings of the packed tokens, `(tokens, hidden)`."""
        ids = np.concatenate([pair.ids for pair in batch])
        positions = np.concatenate([self._positions(pair.ids) for pair in batch])
        types = np.concatenate([self._types(pair) for pair in batch])
        packed = torch.from_numpy(np.stack([ids, types, positions]).astype(np.int64))
        if device.type == "cuda":
            packed = packed.pin_memory()
        rows = packed.to(device, non_blocking=True)
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
        states = first.unsqueeze(1)
        if self._pooler is not None:
            states = self._pooler(states)
        logits: torch.Tensor = self._classifier(states)
        return logits


class _Layer:
    """One transformer layer over packed rows, with query, key and value in one product."""

    def __init__(self, layer: Any) -> None:
        attention = layer.attention.self
        self._heads: int = attention.num_attention_heads
        self._scale: float = attention.scaling
        self._query_key_value = _fused(attention.query, attention.key, attention.value)
        self._width: int = attention.query.out_features
        self._attention_output = layer.attention.output
        self._intermediate = layer.intermediate
        self._output = layer.output

    def forward(
        self, rows: torch.Tensor, hidden: torch.Tensor, queries: Packing, keys: Packing
    ) -> torch.Tensor:
        """States of ``rows``, which attend to ``hidden``; each `(tokens, hidden)`."""
        query, key, value = self._project(rows, hidden)
        attended = packed_attention(query, key, value, queries, keys, scale=self._scale)
        attended = self._attention_output(attended.flatten(1), rows)
        result: torch.Tensor = self._output(self._intermediate(attended), attended)
        return result

    def _project(
        self, rows: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if rows is hidden:
            query, key, value = self._query_key_value(hidden).split(self._width, dim=1)
        else:
            weight, bias = self._query_key_value.weight, self._query_key_value.bias
            query = nn.functional.linear(rows, weight[: self._width], bias[: self._width])
            key_value = nn.functional.linear(hidden, weight[self._width :], bias[self._width :])
            key, value = key_value.split(self._width, dim=1)
        return self._by_head(query), self._by_head(key), self._by_head(value)

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.view(len(rows), self._heads, -1)


def _fused(*linears: nn.Linear) -> nn.Linear:
    """One linear layer with the outputs of several, one after the other.

    The originals are emptied, so that the weights are held once.
    """
    width = sum(linear.out_features for linear in linears)
    fused = nn.Linear(linears[0].in_features, width, device="meta")
    fused.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), False)
    fused.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), False)
    for linear in linears:
        linear.to("meta")
    return fused
