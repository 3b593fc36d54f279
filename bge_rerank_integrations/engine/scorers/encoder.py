"""Encoders of the BERT and RoBERTa families, without padding.

Every sequence's tokens lie one behind the other, so linear layers see real tokens only. The head
reads the first token alone: in the last layer only those rows get a query, an attention output and
a feed-forward pass. Both are exact; a padded pass gives the same logits to float rounding.

The head computes in float32 always: a bfloat16 logit of 9 would be a multiple of 1/16, and ties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import embedding, pad

from bge_rerank_integrations.engine.scorers.encoder_layers import LastLayer, Layer
from bge_rerank_integrations.engine.scorers.encoder_shape import EncoderShape
from bge_rerank_integrations.engine.scorers.linear import rows_to_fill
from bge_rerank_integrations.engine.scorers.packing import Packing
from bge_rerank_integrations.engine.scorers.parameters import Parameters
from bge_rerank_integrations.engine.scorers.transfer import download, upload
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair


class EncoderScorer:
    """Scores packed batches with a ``*ForSequenceClassification`` of one label.

    :param parameters: the checkpoint's, on the device and in the precision to compute in.
    :param shape: its sizes.
    :param passage_type: token type of the passage (1 in BERT, 0 in RoBERTa).
    :raises ModelLoadError: if a tensor is missing or of another shape.
    """

    padded = False

    def __init__(self, parameters: Parameters, shape: EncoderShape, passage_type: int) -> None:
        body = parameters.module(shape.names.body)
        self._device = parameters.device
        self._passage_type = passage_type
        self._padding_index = shape.padding_index
        self._head = _Head(parameters.in_float32(), shape)
        self._embeddings = _Embeddings(body.module("embeddings"), shape)
        layers = [body.module(f"encoder.layer.{n}") for n in range(shape.num_hidden_layers)]
        self._layers = [Layer(layer, shape) for layer in layers[:-1]]
        self._last_layer = LastLayer(layers[-1], shape)

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenizedPair]) -> npt.ArrayLike:
        """Score one packed batch.

        :param batch: pairs in any order; neighbours of equal length are fastest.
        :returns: float32 logits, `(n, 1)`; on CUDA still being computed.
        """
        packing = Packing.of([len(pair) for pair in batch], self._device)
        hidden = self._embeddings(self._rows(batch))
        for layer in self._layers:
            hidden = layer.forward(hidden, packing)
        return download(self._head(self._last_layer.forward(hidden, packing)))

    def _rows(self, batch: Sequence[TokenizedPair]) -> torch.Tensor:
        """Ids, token types and positions of the packed tokens, `(3, tokens)`.

        On a CPU, tokens of no use follow.
        """
        ids = np.concatenate([pair.ids for pair in batch])
        types = np.concatenate([self._types(pair) for pair in batch])
        positions = np.concatenate([self._positions(pair.ids) for pair in batch])
        packed = torch.from_numpy(np.stack([ids, types, positions]).astype(np.int64))
        return upload(pad(packed, (0, rows_to_fill(len(ids), self._device))), self._device)

    def _positions(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Positions of one sequence; a literal padding token in a text keeps padding's position."""
        if self._padding_index is None:
            return np.arange(len(ids))
        real = ids != self._padding_index
        positions: npt.NDArray[np.int64] = np.cumsum(real) * real + self._padding_index
        return positions

    def _types(self, pair: TokenizedPair) -> npt.NDArray[np.int64]:
        return np.where(np.arange(len(pair)) < pair.passage_start, 0, self._passage_type)


class _Embeddings:
    """What a token, its type and its position add up to."""

    def __init__(self, parameters: Parameters, shape: EncoderShape) -> None:
        sizes = {
            "word_embeddings": shape.vocab_size,
            "token_type_embeddings": shape.type_vocab_size,
            "position_embeddings": shape.max_position_embeddings,
        }
        hidden = shape.hidden_size
        self._tables = [parameters.read(f"{n}.weight", size, hidden) for n, size in sizes.items()]
        self._norm = parameters.norm("LayerNorm", hidden, shape.layer_norm_eps)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Ids, types and positions `(3, tokens)` → states `(tokens, hidden)`."""
        words, types, positions = map(embedding, rows, self._tables)
        return self._norm(words.add_(types).add_(positions))


class _Head:
    """States of the first tokens `(n, hidden)` → logits `(n, 1)`: a layer, tanh, another layer."""

    def __init__(self, parameters: Parameters, shape: EncoderShape) -> None:
        hidden = shape.hidden_size
        self._dense = parameters.linear(hidden, hidden, shape.names.dense)
        self._logits = parameters.linear(hidden, 1, shape.names.logits)

    def __call__(self, first: torch.Tensor) -> torch.Tensor:
        return self._logits(torch.tanh(self._dense(first.float())))
