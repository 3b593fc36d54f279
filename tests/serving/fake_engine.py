"""What a server sees of an engine, without a model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bge_rerank_integrations import EngineConfig, Ranking
from bge_rerank_integrations.engine.scheduling.stats import EngineStats
from bge_rerank_integrations.ranking import rank


def logit_of(query: str, document: str) -> float:
    """One point for each word of the document that the query has, less one and a half."""
    return len(set(query.lower().split()) & set(document.lower().split())) - 1.5


class FakeEngine:
    """Answers :func:`logit_of`.

    :param error: raised by every call, instead of an answer.
    :param delay_s: how long an answer takes.
    """

    model = "fake"
    max_length = 512

    def __init__(self, error: Exception | None = None, delay_s: float = 0.0) -> None:
        self.config = EngineConfig("tiny", normalize=False)
        self.error = error
        self.delay_s = delay_s
        self.is_alive = True
        self.calls: list[tuple[str, tuple[str, ...], float | None]] = []
        self.waiting = 0
        self.cancelled = 0

    def stats(self) -> EngineStats:
        return EngineStats("ready", self.model, "cpu", "float32", *[0] * 9)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Ranking:
        self.calls.append((query, tuple(documents), timeout_s))
        self.waiting += 1
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        logits = [logit_of(query, document) for document in documents]
        return Ranking(rank(logits, normalize=False), 10 * len(documents), self.model)
