"""One scorer a model family: a batch of token ids → logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..tokenization.pairs import TokenSequence

Logits = npt.NDArray[np.float32]


class Scorer(Protocol):
    """A model on one device.

    ``padded`` says that sequences of a batch are padded to the longest, so that a batch should
    hold similar lengths.
    """

    padded: bool

    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        """Score one batch.

        :param batch: at least one pair.
        :returns: logits, `(n, layers)`; one column unless several cutoff layers were asked for,
            then the deepest layer last. What is no array yet is still being computed on the device:
            ``np.asarray`` waits for it.
        """
        ...
