"""What each kind of call does, step by step; :mod:`.waiting` waits for its futures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import Future
from itertools import islice

from tqdm.auto import tqdm

from bge_rerank_integrations.engine.scheduling.jobs import Scored, deadline_after
from bge_rerank_integrations.engine.scheduling.requests import (
    Request,
    request_for_documents,
    request_for_pairs,
)
from bge_rerank_integrations.engine.scheduling.scheduler import Scheduler
from bge_rerank_integrations.engine.scheduling.waiting import Steps
from bge_rerank_integrations.errors import ConfigurationError, ForkedProcessError
from bge_rerank_integrations.ranking import Ranking, check_selection, rank, to_scores
from bge_rerank_integrations.settings import EngineConfig

# pairs of a stream in one job, and jobs of it that wait at one time
_CHUNK_PAIRS = 2_048
_CHUNKS_AHEAD = 2


class Calls:
    """Checks a call's texts, hands them in, and turns logits into what the caller asked for.

    :param config: the engine's settings.
    :param scheduler: where requests are handed in; of the process that makes this object.
    :param layers: the layers that a layerwise model scores after; empty for other models.
    """

    def __init__(self, config: EngineConfig, scheduler: Scheduler, layers: Sequence[int]) -> None:
        self._config = config
        self._scheduler = scheduler
        self._layers = layers

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None,
        score_threshold: float | None,
        timeout_s: float | None,
    ) -> Steps[Ranking]:
        """See ``RerankEngine.rerank``."""
        check_selection(top_n, score_threshold)
        logits, tokens = yield from self._logits(query, documents, timeout_s)
        ranked = rank(
            logits,
            top_n=top_n,
            score_threshold=score_threshold,
            normalize=self._config.normalize,
        )
        return Ranking(ranked, tokens, self._config.model)

    def score(
        self, query: str, documents: Sequence[str], timeout_s: float | None
    ) -> Steps[list[float]]:
        """See ``RerankEngine.score``."""
        logits, _ = yield from self._logits(query, documents, timeout_s)
        return to_scores(logits, normalize=self._config.normalize)

    def score_layers(
        self, pairs: Sequence[Sequence[str]], timeout_s: float | None
    ) -> Steps[dict[int, list[float]]]:
        """See ``RerankEngine.score_layers``."""
        if not self._layers:
            raise ConfigurationError(
                f"score_layers needs a layerwise or lightweight model, got {self._config.model}"
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

    def score_pairs(
        self, pairs: Iterable[Sequence[str]], show_progress: bool, timeout_s: float | None
    ) -> Steps[list[float]]:
        """See ``RerankEngine.score_pairs``."""
        deadline = deadline_after(timeout_s)
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
                        left_s = deadline - time.monotonic()
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

    def _logits(
        self, query: str, documents: Sequence[str], timeout_s: float | None
    ) -> Steps[tuple[list[float], int]]:
        """Logits of the documents in input order, and the tokens that were read."""
        request = request_for_documents(query, documents)
        if not request.pairs:
            return [], 0
        scored = yield self._submit(request, timeout_s, self._config.queue_timeout_s)
        return _in_input_order(scored, request), scored.tokens

    def _chunk_pairs(self) -> int:
        return max(min(_CHUNK_PAIRS, self._config.max_queued_pairs // _CHUNKS_AHEAD), 1)

    def _submit(
        self, request: Request, timeout_s: float | None, queue_timeout_s: float | None
    ) -> Future[Scored]:
        if not self._scheduler.is_of_this_process:
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
