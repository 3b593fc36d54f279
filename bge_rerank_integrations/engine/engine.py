"""RerankEngine: texts in, scores out; one model, one queue, any number of callers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import Self

from bge_rerank_integrations.engine import registry
from bge_rerank_integrations.engine.loading.model import LoadedModel
from bge_rerank_integrations.engine.running_model import RunningModel, load_and_run
from bge_rerank_integrations.engine.scheduling.calls import Calls
from bge_rerank_integrations.engine.scheduling.stats import EngineStats
from bge_rerank_integrations.engine.scheduling.waiting import run, run_async
from bge_rerank_integrations.ranking import Ranking
from bge_rerank_integrations.settings import DEFAULT_MODEL, EngineConfig


class RerankEngine:
    """Scores (query, document) pairs with a cross-encoder.

    May be called from any thread and any event loop; calls that come together are scored together.
    The ``a…`` methods hold no thread while they wait, and leave the queue when they are cancelled.

    Every scoring method takes ``timeout_s``, the seconds after which the call fails with
    ``DeadlineError``, and raises:

    * ``InputError`` for a query or document that is not a string or not valid Unicode;
    * ``ScoringError`` if the model fails on one of the documents, or answers NaN;
    * ``OverloadedError``, ``DeadlineError``, ``EngineClosedError``, ``EngineFailedError``,
      ``ForkedProcessError`` as their names say.

    :param config: the settings; None means the defaults.
    :raises ModelLoadError: if the model cannot be loaded.
    :raises ConfigurationError: if a setting does not fit this machine or model.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        config = config or EngineConfig()
        self._use(config, load_and_run(config))

    @classmethod
    def on(cls, model: LoadedModel, config: EngineConfig) -> Self:
        """An engine on a model that is loaded already; ``config`` says how to run it."""
        engine = object.__new__(cls)
        engine._use(config, RunningModel(config, model))
        return engine

    @classmethod
    def shared(cls, model: str | EngineConfig = DEFAULT_MODEL, **settings: Any) -> RerankEngine:
        """This process's engine for these settings, loaded at the first call.

        Engines whose settings differ in ``normalize`` alone share one model, and are closed
        together.

        :param model: a model's name, or whole settings.
        :param settings: the other settings of :class:`EngineConfig`, where ``model`` is a name.
        """
        config = model if isinstance(model, EngineConfig) else EngineConfig(model, **settings)
        return registry.find_or_make(config, cls)

    def reporting(self, normalize: bool) -> Self:
        """Another engine on the same model, which reports probabilities or logits.

        The two share threads, queue and figures, and are closed together.
        """
        twin = object.__new__(type(self))
        twin._use(replace(self._config, normalize=normalize), self._running)
        return twin

    @property
    def config(self) -> EngineConfig:
        """The settings."""
        return self._config

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._config.model

    @property
    def device(self) -> str:
        """Where the model runs; several devices with commas between."""
        return self._running.device

    @property
    def dtype(self) -> str:
        """Precision of the weights, e.g. ``"bfloat16"``."""
        return self._running.dtype

    @property
    def max_length(self) -> int:
        """Tokens of a pair, at most: the setting, within the model's own limit."""
        return self._running.max_length

    @property
    def is_alive(self) -> bool:
        """Whether the engine answers calls: not closed, not failed, not the parent process's."""
        return self._running.state == "ready"

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Ranking:
        """Rank documents by relevance to the query, best first.

        :param top_n: how many to keep; None keeps all.
        :param score_threshold: keep ``score >= score_threshold``.
        :returns: the kept documents; empty if there are none.
        :raises ConfigurationError: for a ``top_n`` below 1.
        """
        return run(self._calls.rerank(query, documents, top_n, score_threshold, timeout_s))

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Ranking:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        return await run_async(
            self._calls.rerank(query, documents, top_n, score_threshold, timeout_s)
        )

    def score(
        self, query: str, documents: Sequence[str], *, timeout_s: float | None = None
    ) -> list[float]:
        """Score documents against the query.

        :returns: one score a document, in input order.
        """
        return run(self._calls.score(query, documents, timeout_s))

    async def ascore(
        self, query: str, documents: Sequence[str], *, timeout_s: float | None = None
    ) -> list[float]:
        """Score like :meth:`score`, without blocking the event loop."""
        return await run_async(self._calls.score(query, documents, timeout_s))

    def score_pairs(
        self,
        pairs: Iterable[Sequence[str]],
        show_progress: bool = False,
        *,
        timeout_s: float | None = None,
    ) -> list[float]:
        """Score (query, document) pairs; any number of them, read as they are needed.

        :param show_progress: show a progress bar on standard error.
        :returns: one score a pair, in input order.
        """
        return run(self._calls.score_pairs(pairs, show_progress, timeout_s))

    async def ascore_pairs(
        self,
        pairs: Iterable[Sequence[str]],
        show_progress: bool = False,
        *,
        timeout_s: float | None = None,
    ) -> list[float]:
        """Score like :meth:`score_pairs`, without blocking the event loop."""
        return await run_async(self._calls.score_pairs(pairs, show_progress, timeout_s))

    def score_layers(
        self, pairs: Sequence[Sequence[str]], *, timeout_s: float | None = None
    ) -> dict[int, list[float]]:
        """Score pairs after each of ``cutoff_layers``; for layerwise and lightweight models.

        Layers are not comparable to each other: each has a scale of its own.

        :returns: for each number of layers, one score a pair in input order.
        :raises ConfigurationError: for a model that scores after its last layer only.
        """
        return run(self._calls.score_layers(pairs, timeout_s))

    async def ascore_layers(
        self, pairs: Sequence[Sequence[str]], *, timeout_s: float | None = None
    ) -> dict[int, list[float]]:
        """Score like :meth:`score_layers`, without blocking the event loop."""
        return await run_async(self._calls.score_layers(pairs, timeout_s))

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        return self._running.stats()

    def close(self) -> None:
        """Free the model's memory; callers that still wait get ``EngineClosedError``."""
        self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # frameworks copy components freely; a second set of weights is never meant
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return RerankEngine.shared, (self._config,)

    def __repr__(self) -> str:
        return f"RerankEngine({self.model!r}, {self.device}, {self.dtype}, {self._running.state})"

    def _use(self, config: EngineConfig, running: RunningModel) -> None:
        self._config = config
        self._running = running
        self._calls = Calls(config, running.scheduler, running.layers)
