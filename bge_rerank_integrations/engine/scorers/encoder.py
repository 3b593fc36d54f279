"""Encoders of the BERT and RoBERTa families, without padding.

Every sequence's tokens lie one behind the other, so linear layers see real tokens only. The head
reads the first token alone: in the last layer only those rows get a query, an attention output and
a feed-forward pass. Both are exact; a padded pass gives the same logits to float rounding.

The head computes in float32 always: a bfloat16 logit of 9 would be a multiple of 1/16, and ties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt
import torch

from bge_rerank_integrations.engine.scorers.encoder_embeddings import Embeddings
from bge_rerank_integrations.engine.scorers.encoder_layers import LastLayer, Layer
from bge_rerank_integrations.engine.scorers.encoder_shape import EncoderShape
from bge_rerank_integrations.engine.scorers.packing import Packing
from bge_rerank_integrations.engine.scorers.parameters import Parameters
from bge_rerank_integrations.engine.scorers.transfer import download
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
        self._head = _Head(parameters.in_float32(), shape)
        self._embeddings = Embeddings(body.module("embeddings"), shape, passage_type)
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
        hidden = self._embeddings(batch)
        for layer in self._layers:
            hidden = layer.forward(hidden, packing)
        logits = self._head(self._last_layer.forward(hidden, packing))
        return download(logits[: len(batch)])


class _Head:
    """States of the first tokens `(n, hidden)` → logits `(n, 1)`: a layer, tanh, another layer."""

    def __init__(self, parameters: Parameters, shape: EncoderShape) -> None:
        hidden = shape.hidden_size
        self._dense = parameters.linear(hidden, hidden, shape.names.dense)
        self._logits = parameters.linear(hidden, 1, shape.names.logits)

    def __call__(self, first: torch.Tensor) -> torch.Tensor:
        return self._logits(torch.tanh(self._dense(first.float())))
