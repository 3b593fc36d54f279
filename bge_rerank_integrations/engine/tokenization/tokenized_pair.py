"""One pair of texts as token ids."""

from __future__ import annotations

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
