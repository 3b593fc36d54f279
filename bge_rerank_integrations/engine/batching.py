"""What goes into one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPair:
    """One (query, passage) pair as a model reads it.

    :param ids: token ids with the special tokens, `(n,)` int32.
    :param passage_start: index of the passage's first token; what stands before is the query's.
    :param passage_end: index after the passage's last token; what follows is the same for all.
    """

    ids: npt.NDArray[np.int32]
    passage_start: int
    passage_end: int

    def __len__(self) -> int:
        return len(self.ids)


def plan_batches(
    lengths: Sequence[int], max_batch_tokens: int, *, padded: bool = False
) -> list[list[int]]:
    """Split sequences into batches of similar length within a token budget.

    :param lengths: tokens of each sequence.
    :param max_batch_tokens: tokens in one batch; a longer single sequence is a batch of its own.
    :param padded: count what padding to the longest of the batch adds.
    :returns: indices into ``lengths``, longest first, every one exactly once.
    """
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        # longest first: the first of a batch is what all others are padded to
        cost = lengths[batches[-1][0]] if padded and batches else lengths[index]
        if not batches or used + cost > max_batch_tokens:
            batches.append([])
            used, cost = 0, lengths[index]
        batches[-1].append(index)
        used += cost
    return batches
