"""Statistics of an engine."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

from ...settings import EngineConfig

State = Literal["ready", "closed", "failed"]

_COUNTED = ("pairs", "sequences", "tokens", "batches", "retries", "failures")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
_TOKENS = (64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Values counted in buckets.

    :param bounds: the largest value of each bucket, ascending.
    :param counts: values in each bucket, and in one more for those above the last bound.
    :param total: sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Histogram:
        """A histogram without values."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def with_value(self, value: float) -> Histogram:
        """The same, and one value more."""
        index = bisect_left(self.bounds, value)
        counts = (*self.counts[:index], self.counts[index] + 1, *self.counts[index + 1 :])
        return Histogram(self.bounds, counts, self.total + value)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Statistics of a moment; counts are since the model was loaded.

    :param state: whether the engine answers calls.
    :param model: name of the model.
    :param device: where it was loaded to.
    :param lost_devices: those of them that have failed; the others go on.
    :param loaded_models: the configs of all models that this process has loaded and not closed.
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
    :param queue_wait_s: seconds from a call's submission to its first batch.
    :param batch_sequences: sequences of each successful forward pass.
    :param batch_tokens: tokens of each successful forward pass.
    :param dtype_times: seconds of one layer by precision, which ``dtype="auto"`` chose by; empty on
        other devices than a CPU.
    """

    state: State
    model: str
    device: str
    dtype: str
    lost_devices: tuple[str, ...]
    loaded_models: tuple[EngineConfig, ...]
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
    queue_wait_s: Histogram
    batch_sequences: Histogram
    batch_tokens: Histogram
    dtype_times: Mapping[str, float] = field(default_factory=dict)

    @property
    def cache_hit_rate(self) -> float:
        """Share of the texts whose token ids were remembered, 0 to 1."""
        return self.cache_hits / max(self.cache_hits + self.cache_misses, 1)


class Counters:
    """What an engine's threads have done so far; may be counted and read from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._histograms = {
            "queue_wait_s": Histogram.empty(_SECONDS),
            "batch_sequences": Histogram.empty(_SEQUENCES),
            "batch_tokens": Histogram.empty(_TOKENS),
        }

    def add(self, **more: int) -> None:
        """Add to some of the counts."""
        with self._lock:
            counts = self._counts
            self._counts = {name: counts[name] + more.get(name, 0) for name in counts}

    def add_batch(self, sequences: int, tokens: int) -> None:
        """Count a forward pass that succeeded."""
        self.add(batches=1, sequences=sequences, tokens=tokens)
        self.observe("batch_sequences", sequences)
        self.observe("batch_tokens", tokens)

    def observe(self, name: str, value: float) -> None:
        """Count a value in one of the histograms."""
        with self._lock:
            self._histograms = {
                **self._histograms,
                name: self._histograms[name].with_value(value),
            }

    def snapshot(self) -> dict[str, Any]:
        """All counts and histograms."""
        # replaced as a whole: reading needs no lock, which a fork may have left held
        return {**self._counts, **self._histograms}
