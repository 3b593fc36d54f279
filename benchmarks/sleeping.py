"""A device that computes on its own, while the host only waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair


class SleepingScorer:
    """Takes its time, and gives every pair the same logit.

    :param seconds: of a batch, by its number of pairs.
    """

    padded = False

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds

    def score(self, batch: Sequence[TokenizedPair]) -> Logits:
        """Zeros, after a while."""
        time.sleep(self._seconds(len(batch)))
        return np.zeros((len(batch), 1), dtype=np.float32)
