"""Sequences between the queue and their logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bge_rerank_integrations.engine.scheduling.job import PendingSequence


class Take(NamedTuple):
    """When sequences were taken for a forward pass, and whether others were left waiting."""

    moment: float
    is_full: bool


class InFlight:
    """Sequences that workers have taken and that are still waited for."""

    def __init__(self) -> None:
        self._takes: dict[PendingSequence, Take] = {}
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._takes)

    def add(self, sequences: Sequence[PendingSequence], take: Take) -> None:
        """Remember sequences that a worker takes."""
        self._takes.update(dict.fromkeys(sequences, take))
        self.tokens += sum(map(len, sequences))

    def take_of(self, sequence: PendingSequence) -> Take | None:
        """When a sequence was taken; None if it is not in flight any more."""
        return self._takes.get(sequence)

    def remove(self, sequences: Iterable[PendingSequence]) -> None:
        """Forget sequences; some may be forgotten already."""
        for sequence in sequences:
            if self._takes.pop(sequence, None) is not None:
                self.tokens -= len(sequence)

    def clear(self) -> None:
        """Forget all."""
        self._takes.clear()
        self.tokens = 0
