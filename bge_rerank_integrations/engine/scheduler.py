"""The threads behind an engine: one tokenizes, one a device scores. Every caller is answered.

While a batch runs, calls gather in the queue and the next batch takes from all of them: nothing
waits for a timer. A batch that fails is halved until the pair at fault stands alone, so that only
its call fails; a batch that does not fit the device's memory is halved and the next ones are made
smaller. A thread that dies, or a device that is lost, fails all callers at once, and later ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from bge_rerank_integrations.engine.batching import TokenizedPair, plan_batches
from bge_rerank_integrations.engine.failures import is_fatal, is_out_of_memory
from bge_rerank_integrations.engine.jobs import Job, Piece, Scored, TextPair
from bge_rerank_integrations.engine.queue import JobQueue
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.errors import (
    EngineClosedError,
    EngineFailedError,
    InputError,
    RerankError,
    ScoringError,
)

logger = logging.getLogger(__name__)

Tokenize = Callable[[Sequence[TextPair]], list[list[TokenizedPair]]]

# pairs tokenized at one time: the first are scored while the next are tokenized
_TOKENIZE_PAIRS = 256
_SMALLEST_BATCH_TOKENS = 256
# a padded scorer sorts over several batches, to put like lengths together
_PADDED_BATCHES_AHEAD = 4


@dataclass
class Counters:
    """What the threads have done so far."""

    pairs: int = 0
    tokens: int = 0
    batches: int = 0
    retries: int = 0
    failures: int = 0


class Scheduler:
    """Runs jobs on one or several scorers.

    :param tokenize: pairs of texts → sequences of each pair; called from one thread only.
    :param scorers: one a replica; each is called from one thread only.
    :param max_batch_tokens: tokens in one forward pass.
    :param max_queued_pairs: pairs that may wait.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        scorers: Sequence[Scorer],
        *,
        max_batch_tokens: int,
        max_queued_pairs: int,
    ) -> None:
        self.counters = Counters()
        self.failure: BaseException | None = None
        self._tokenize = tokenize
        self._max_batch_tokens = max_batch_tokens
        self._batch_tokens = float(max_batch_tokens)
        self._queue = JobQueue(max_queued_pairs)
        self._threads = [self._start("tokenizer", self._run_tokenizer)]
        self._threads += [
            self._start(f"scorer-{number}", self._run_scorer, scorer)
            for number, scorer in enumerate(scorers)
        ]

    @property
    def queued_pairs(self) -> int:
        """Pairs in calls that are not answered yet."""
        return self._queue.queued_pairs

    @property
    def in_flight(self) -> int:
        """Sequences in a forward pass now."""
        return self._queue.in_flight

    def submit(
        self,
        pairs: Sequence[TextPair],
        indices: Sequence[int],
        *,
        timeout_s: float | None,
        queue_timeout_s: float | None,
    ) -> Future[Scored]:
        """Queue pairs; the future answers with their logits, and may be cancelled at any time.

        :raises OverloadedError: if the queue is full and ``queue_timeout_s`` is 0.
        :raises EngineClosedError: after :meth:`close`.
        :raises EngineFailedError: after a thread or the device was lost.
        """
        job = Job(pairs, indices, timeout_s, queue_timeout_s)
        self._queue.submit(job)
        return job.future

    def close(self, join_timeout_s: float = 10.0) -> None:
        """Answer every caller with ``EngineClosedError`` and end the threads.

        :param join_timeout_s: how long to wait for a forward pass that is under way.
        """
        self._queue.stop(lambda: EngineClosedError("the engine was closed"))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(join_timeout_s)

    def _start(self, name: str, run: Callable[..., None], *args: object) -> threading.Thread:
        # daemon: an engine that nobody closed must not keep the interpreter from ending
        thread = threading.Thread(
            target=self._guard, args=(run, *args), name=f"bge-rerank-{name}", daemon=True
        )
        thread.start()
        return thread

    def _guard(self, run: Callable[..., None], *args: object) -> None:
        """Run a thread's loop; if it dies, no caller waits for it in vain."""
        try:
            run(*args)
        except BaseException as error:
            self._break(error)

    def _break(self, cause: BaseException) -> None:
        logger.critical("the engine failed and will answer no more calls", exc_info=cause)
        self.failure = cause
        message = f"the engine failed and cannot go on: {type(cause).__name__}: {cause}"
        self._queue.stop(lambda: _caused_by(EngineFailedError(message), cause))

    def _run_tokenizer(self) -> None:
        while (work := self._queue.next_to_tokenize(_TOKENIZE_PAIRS)) is not None:
            job, start, pairs = work
            try:
                sequences = self._tokenize(pairs)
            except Exception as error:
                self._blame_pair(job, start, pairs, error)
            else:
                self._queue.add_sequences(job, start, sequences)

    def _blame_pair(
        self, job: Job, start: int, pairs: Sequence[TextPair], error: Exception
    ) -> None:
        """Fail a job whose tokenization failed, naming the pair at fault if one alone fails too."""
        self.counters.failures += 1
        for slot, pair in enumerate(pairs, start):
            try:
                self._tokenize([pair])
            except Exception as alone:
                index = job.indices[slot]
                message = f"document {index} cannot be tokenized: {alone}"
                job.fail(_caused_by(InputError(message, index), alone))
                return
        job.fail(_caused_by(ScoringError(f"tokenization failed: {error}"), error))

    def _run_scorer(self, scorer: Scorer) -> None:
        ahead = _PADDED_BATCHES_AHEAD if scorer.padded else 1
        while (pieces := self._queue.next_to_score(int(self._batch_tokens) * ahead)) is not None:
            lengths = [len(piece) for piece in pieces]
            for batch in plan_batches(lengths, int(self._batch_tokens), padded=scorer.padded):
                self._score(scorer, [pieces[index] for index in batch])

    def _score(self, scorer: Scorer, pieces: Sequence[Piece]) -> None:
        """Score a batch, or halve it until the pair at fault stands alone."""
        pieces = self._queue.without_answered(pieces)
        if not pieces:
            return
        try:
            logits = scorer.score([piece.pair for piece in pieces])
            if len(logits) != len(pieces):
                raise RuntimeError(
                    f"{len(pieces)} logits were expected, the model gave {len(logits)}"
                )
        except BaseException as error:
            if is_fatal(error):
                raise
            # without its traceback, whose frames would keep the failed batch's tensors alive
            failure = error.with_traceback(None)
        else:
            self._count(pieces)
            self._queue.add_logits(pieces, logits)
            return
        if is_out_of_memory(failure):
            self._shrink()
        if len(pieces) == 1:
            self._fail(pieces[0], failure)
            return
        self.counters.retries += 1
        middle = len(pieces) // 2
        self._score(scorer, pieces[:middle])
        self._score(scorer, pieces[middle:])

    def _fail(self, piece: Piece, error: BaseException) -> None:
        self.counters.failures += 1
        index = piece.job.indices[piece.slot]
        logger.error("scoring document %d of a call failed: %s", index, error)
        message = f"scoring document {index} failed: {error}"
        self._queue.fail(piece, _caused_by(ScoringError(message, index), error))

    def _shrink(self) -> None:
        """Halve the budget of the batches to come."""
        self._batch_tokens = max(self._batch_tokens / 2, _SMALLEST_BATCH_TOKENS)
        logger.warning("out of memory: batches shrink to %d tokens", self._batch_tokens)

    def _count(self, pieces: Sequence[Piece]) -> None:
        self.counters.batches += 1
        self.counters.pairs += len(pieces)
        self.counters.tokens += sum(map(len, pieces))
        # back to the full budget by and by: memory may have been another process's for a moment
        self._batch_tokens = min(self._batch_tokens * 1.01, self._max_batch_tokens)


def _caused_by(error: RerankError, cause: BaseException) -> RerankError:
    error.__cause__ = cause
    return error
