"""Encoders without padding: a body pools each sequence's states, a head makes the logits.

Every sequence's tokens lie one behind the other, so linear layers see real tokens only. A body
that pools first tokens computes its last layer for those rows alone. Both are exact; a padded pass
gives the same logits to float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy.typing as npt
import torch

from bge_rerank_integrations.engine.scorers.heads import Head
from bge_rerank_integrations.engine.scorers.packing import download
from bge_rerank_integrations.engine.tokenization.sequence import TokenSequence


class EncoderBody(Protocol):
    """Embeddings and layers of an encoder, on one device."""

    def __call__(self, batch: Sequence[TokenSequence]) -> torch.Tensor:
        """Pooled states of the sequences, `(n, hidden)`; on a CPU, padding rows may follow.

        :param batch: sequences in any order; neighbors of equal length are fastest.
        """
        ...


class EncoderScorer:
    """Scores packed batches.

    :param body: made with the head's pooling.
    :param head: pooled states → logits.
    """

    padded = False

    def __init__(self, body: EncoderBody, head: Head) -> None:
        self._body = body
        self._head = head

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        """Score one packed batch.

        :returns: float32 logits, `(n, 1)`; on CUDA still being computed.
        """
        logits = self._head(self._body(batch))
        return download(logits[: len(batch)])
