"""RerankEngine: texts in, scores out; one model, one queue, any number of callers."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import Future
from itertools import islice
from typing import Any

from tqdm.auto import tqdm
from typing_extensions import Self

from bge_rerank_integrations.engine import registry
from bge_rerank_integrations.engine.devices import release_memory
from bge_rerank_integrations.engine.jobs import Scored
from bge_rerank_integrations.engine.loading import load
from bge_rerank_integrations.engine.requests import (
    Request,
    request_for_documents,
    request_for_pairs,
)
from bge_rerank_integrations.engine.scheduler import Scheduler
from bge_rerank_integrations.engine.stats import EngineStats, State
from bge_rerank_integrations.engine.waiting import Steps, run, run_async
from bge_rerank_integrations.errors import ConfigurationError, ForkedProcessError
from bge_rerank_integrations.ranking import Ranking, check_selection, rank, to_scores
from bge_rerank_integrations.settings import DEFAULT_MODEL, EngineConfig

# pairs of a stream in one job, and jobs of it that wait at one time
_CHUNK_PAIRS = 2_048
_CHUNKS_AHEAD = 2


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
        self._config = config or EngineConfig()
        self._pid = os.getpid()
        model = load(self._config)
        self._tokenizer = model.tokenizer
        self._device = ",".join(map(str, model.devices))
        self._dtype = str(model.dtype).removeprefix("torch.")
        self._max_length = model.max_length
        self._layers = model.layers
        self._is_layerwise = model.is_layerwise
        self._closed = False
        self._scheduler = Scheduler(
            model.tokenizer,
            model.scorers,
            max_batch_tokens=model.max_batch_tokens,
            max_queued_pairs=self._config.max_queued_pairs,
        )
        # also runs when the interpreter ends, so that no caller is left waiting then
        weakref.finalize(self, self._scheduler.close)

    @classmethod
    def shared(cls, model: str | EngineConfig = DEFAULT_MODEL, **settings: Any) -> RerankEngine:
        """This process's engine for these settings, loaded at the first call.

        :param model: a model's name, or whole settings.
        :param settings: the other settings of :class:`EngineConfig`, where ``model`` is a name.
        """
        config = model if isinstance(model, EngineConfig) else EngineConfig(model, **settings)
        return registry.find_or_make(config, cls)

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
        return self._device

    @property
    def dtype(self) -> str:
        """Precision of the weights, e.g. ``"bfloat16"``."""
        return self._dtype

    @property
    def max_length(self) -> int:
        """Tokens of a pair, at most: the setting, within the model's own limit."""
        return self._max_length

    @property
    def is_alive(self) -> bool:
        """Whether the engine is neither closed nor failed."""
        return not self._closed and self._scheduler.failure is None

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
        return run(self._rerank(query, documents, top_n, score_threshold, timeout_s))

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
        return await run_async(self._rerank(query, documents, top_n, score_threshold, timeout_s))

    def score(
        self, query: str, documents: Sequence[str], *, timeout_s: float | None = None
    ) -> list[float]:
        """Score documents against the query.

        :returns: one score a document, in input order.
        """
        return run(self._score(query, documents, timeout_s))

    async def ascore(
        self, query: str, documents: Sequence[str], *, timeout_s: float | None = None
    ) -> list[float]:
        """Score like :meth:`score`, without blocking the event loop."""
        return await run_async(self._score(query, documents, timeout_s))

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
        return run(self._score_pairs(pairs, show_progress, timeout_s))

    async def ascore_pairs(
        self,
        pairs: Iterable[Sequence[str]],
        show_progress: bool = False,
        *,
        timeout_s: float | None = None,
    ) -> list[float]:
        """Score like :meth:`score_pairs`, without blocking the event loop."""
        return await run_async(self._score_pairs(pairs, show_progress, timeout_s))

    def score_layers(
        self, pairs: Sequence[Sequence[str]], *, timeout_s: float | None = None
    ) -> dict[int, list[float]]:
        """Score pairs after each of ``cutoff_layers``; for layerwise and lightweight models.

        Layers are not comparable to each other: each has a scale of its own.

        :returns: for each number of layers, one score a pair in input order.
        :raises ConfigurationError: for a model that scores after its last layer only.
        """
        return run(self._score_layers(pairs, timeout_s))

    async def ascore_layers(
        self, pairs: Sequence[Sequence[str]], *, timeout_s: float | None = None
    ) -> dict[int, list[float]]:
        """Score like :meth:`score_layers`, without blocking the event loop."""
        return await run_async(self._score_layers(pairs, timeout_s))

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        return EngineStats(
            state=self._state(),
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            queued_pairs=self._scheduler.queued_pairs,
            in_flight=self._scheduler.in_flight,
            cache_hits=self._tokenizer.cache_hits,
            **vars(self._scheduler.counters),
        )

    def close(self) -> None:
        """Free the model's memory; callers that still wait get ``EngineClosedError``."""
        self._closed = True
        self._scheduler.close()
        release_memory()

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
        return f"RerankEngine({self.model!r}, {self.device}, {self.dtype}, {self._state()})"

    def _state(self) -> State:
        if self._closed:
            return "closed"
        return "failed" if self._scheduler.failure is not None else "ready"

    def _rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None,
        score_threshold: float | None,
        timeout_s: float | None,
    ) -> Steps[Ranking]:
        check_selection(top_n, score_threshold)
        logits, tokens = yield from self._logits(query, documents, timeout_s)
        ranked = rank(
            logits,
            top_n=top_n,
            score_threshold=score_threshold,
            normalize=self._config.normalize,
        )
        return Ranking(ranked, tokens, self.model)

    def _score(
        self, query: str, documents: Sequence[str], timeout_s: float | None
    ) -> Steps[list[float]]:
        logits, _ = yield from self._logits(query, documents, timeout_s)
        return to_scores(logits, normalize=self._config.normalize)

    def _logits(
        self, query: str, documents: Sequence[str], timeout_s: float | None
    ) -> Steps[tuple[list[float], int]]:
        """Logits of the documents in input order, and the tokens that were read."""
        request = request_for_documents(query, documents)
        if not request.pairs:
            return [], 0
        scored = yield self._submit(request, timeout_s, self._config.queue_timeout_s)
        return _in_input_order(scored, request), scored.tokens

    def _score_layers(
        self, pairs: Sequence[Sequence[str]], timeout_s: float | None
    ) -> Steps[dict[int, list[float]]]:
        if not self._is_layerwise:
            raise ConfigurationError(
                f"score_layers needs a layerwise or lightweight model, got {self.model}"
            )
        request = request_for_pairs(pairs, 0)
        if not request.pairs:
            return {layer: [] for layer in self._layers}
        scored = yield self._submit(request, timeout_s, self._config.queue_timeout_s)
        return {
            layer: to_scores(
                _in_input_order(scored, request, column), normalize=self._config.normalize
            )
            for column, layer in enumerate(self._layers)
        }

    def _score_pairs(
        self, pairs: Iterable[Sequence[str]], show_progress: bool, timeout_s: float | None
    ) -> Steps[list[float]]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        # only the start may be refused: what has begun waits for its place and loses nothing
        queue_timeout_s: float | None = self._config.queue_timeout_s
        waiting: deque[tuple[Request, Future[Scored]]] = deque()
        logits: list[float] = []
        source = iter(pairs)
        total = len(pairs) if isinstance(pairs, Sized) else None
        with tqdm(total=total, unit="pair", disable=not show_progress) as bar:
            try:
                while True:
                    read = len(logits) + sum(len(request.slots) for request, _ in waiting)
                    request = request_for_pairs(islice(source, self._chunk_pairs()), read)
                    if request.pairs:
                        left_s = None if deadline is None else deadline - time.monotonic()
                        waiting.append((request, self._submit(request, left_s, queue_timeout_s)))
                        queue_timeout_s = None
                    if not waiting:
                        return to_scores(logits, normalize=self._config.normalize)
                    if not request.pairs or len(waiting) == _CHUNKS_AHEAD:
                        request, future = waiting.popleft()
                        logits += _in_input_order((yield future), request)
                        bar.update(len(request.slots))
            finally:
                for _, future in waiting:
                    future.cancel()

    def _chunk_pairs(self) -> int:
        return max(min(_CHUNK_PAIRS, self._config.max_queued_pairs // _CHUNKS_AHEAD), 1)

    def _submit(
        self, request: Request, timeout_s: float | None, queue_timeout_s: float | None
    ) -> Future[Scored]:
        if os.getpid() != self._pid:
            raise ForkedProcessError(
                "this engine was made before the process forked and cannot run here: make it in "
                "the child, or start processes with multiprocessing.get_context('spawn')"
            )
        return self._scheduler.submit(
            request.pairs,
            request.indices,
            timeout_s=timeout_s,
            queue_timeout_s=queue_timeout_s,
        )


def _in_input_order(scored: Scored, request: Request, column: int = -1) -> list[float]:
    """A layer's logits, the deepest's by default, one for each of the caller's pairs."""
    logits: list[float] = scored.logits[list(request.slots), column].tolist()
    return logits
