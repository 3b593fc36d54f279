"""What a server needs of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bge_rerank_integrations.ranking import Ranking
from bge_rerank_integrations.settings import EngineConfig

if TYPE_CHECKING:
    from bge_rerank_integrations.engine.scheduling.stats import EngineStats


class ServedEngine(Protocol):
    """The part of :class:`RerankEngine` that a server uses."""

    @property
    def config(self) -> EngineConfig:
        """The settings; ``normalize`` must be False, so that both scales can be answered."""
        ...

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of a pair, at most."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether the engine answers calls."""
        ...

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        ...

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Ranking:
        """Rank documents by their logits."""
        ...
