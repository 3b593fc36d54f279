"""Statistics of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Literal

State = Literal["ready", "closed", "failed"]

_COUNTED = ("pairs", "sequences", "tokens", "batches", "retries", "failures")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Statistics of a moment; counts are since the model was loaded.

    :param state: whether the engine answers calls.
    :param model: name of the model.
    :param device: where it runs.
    :param dtype: precision of its weights.
    :param queued_pairs: different pairs in calls that are not answered yet.
    :param in_flight: sequences in a forward pass now.
    :param pairs: (query, document) pairs of the calls that were answered.
    :param sequences: sequences scored: one a different pair, or one a window of a long document.
    :param tokens: tokens read.
    :param batches: forward passes that succeeded.
    :param retries: batches that failed and were halved.
    :param failures: calls that failed in tokenization or in the forward pass.
    :param cache_hits: texts whose token ids were remembered.
    :param cache_misses: texts that were tokenized.
    """

    state: State
    model: str
    device: str
    dtype: str
    queued_pairs: int
    in_flight: int
    pairs: int
    sequences: int
    tokens: int
    batches: int
    retries: int
    failures: int
    cache_hits: int
    cache_misses: int

    @property
    def cache_hit_rate(self) -> float:
        """Share of the texts whose token ids were remembered, 0 to 1."""
        return self.cache_hits / max(self.cache_hits + self.cache_misses, 1)


class Counters:
    """What an engine's threads have done so far; may be counted and read from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = dict.fromkeys(_COUNTED, 0)

    def add(self, **more: int) -> None:
        """Add to some of the counts."""
        with self._lock:
            counts = self._counts
            self._counts = {name: counts[name] + more.get(name, 0) for name in counts}

    def snapshot(self) -> dict[str, int]:
        """All counts, of one moment."""
        # replaced as a whole: reading needs no lock, which a fork may have left held
        return dict(self._counts)
