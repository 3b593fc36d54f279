"""Sequences one behind the other in one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch

from bge_rerank_integrations.engine.scorers.transfer import upload


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each sequence lies in a packed batch.

    :param lengths: tokens of each sequence, in order.
    :param starts: `(n + 1,)` int32 on the batch's device: each sequence's first token, and the end.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Packing:
        """Lay sequences of these lengths one behind the other."""
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(tuple(lengths), upload(starts, device))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)


def common_runs(queries: Packing, keys: Packing) -> Iterator[tuple[int, int, int]]:
    """(query length, key length, count) of each run in which both lengths stay the same."""
    pairs = zip(queries.lengths, keys.lengths, strict=True)
    for (query_length, key_length), run in groupby(pairs):
        yield query_length, key_length, sum(1 for _ in run)
