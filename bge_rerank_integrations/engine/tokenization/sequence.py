"""What a model reads: one (query, document) pair as token ids, or one window of a long one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]


def to_ids(ids: Sequence[int]) -> TokenIds:
    """Token ids as an array, `(n,)`."""
    return np.array(ids, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """Token ids of a pair, or of one window of it.

    :param ids: token ids with the special tokens, `(n,)` int32.
    :param passage_start: index of the passage's first token; the query stands before it.
    :param passage_end: index after the passage's last token.
    :param query_truncated: whether the query goes on after what is in here.
    :param document_truncated: whether the document goes on after all that is read of it.
    """

    ids: TokenIds
    passage_start: int
    passage_end: int
    query_truncated: bool = False
    document_truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)


def window_starts(tokens: int, budget: int) -> list[int]:
    """First tokens of windows that overlap by half; the last one ends with the text."""
    if tokens <= budget:
        return [0]
    step = max(budget // 2, 1)
    return [*range(0, tokens - budget, step), tokens - budget]
