"""The threads behind an engine: one tokenizes, one a device scores, one watches the deadlines.

While a batch runs, calls gather in the queue and the next batch takes from all of them: nothing
waits for a timer. Every caller is answered: a thread that dies, or a device that is lost, fails all
callers at once, and later ones.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from bge_rerank_integrations.engine.scheduling.failures import caused_by, is_exit, without_traceback
from bge_rerank_integrations.engine.scheduling.job import Job, TextPair
from bge_rerank_integrations.engine.scheduling.queue import JobQueue
from bge_rerank_integrations.engine.scheduling.score_cache import ScoreCache
from bge_rerank_integrations.engine.scheduling.stats import Counters
from bge_rerank_integrations.engine.scheduling.worker import Worker
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.tokenization.pairs import AnyLayout
from bge_rerank_integrations.engine.tokenization.sequence import TokenSequence
from bge_rerank_integrations.errors import (
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
    InputError,
    ScoringError,
)

logger = logging.getLogger(__name__)

Tokenize = Callable[[Sequence[TextPair], AnyLayout], list[list[TokenSequence]]]

# Tokenized at one time: the first pairs are scored while the next are tokenized, and a call with
# very long documents lets others pass.
_TOKENIZE_PAIRS = 256
_TOKENIZE_CHARACTERS = 1_000_000
# how long closing waits for a forward pass that is under way
_CLOSE_TIMEOUT_S = 10.0


class Scheduler:
    """Runs jobs on one or several scorers.

    :param tokenize: pairs of texts → sequences of each pair; called from one thread only.
    :param scorers: one a replica; each has a thread of its own.
    :param max_batch_tokens: tokens in one forward pass.
    :param max_queued_pairs: pairs that may wait.
    :param max_cached_scores: pairs whose logits are remembered; 0 remembers none.
    :param n_outputs: columns of the scorers' logits.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        scorers: Sequence[Scorer],
        *,
        max_batch_tokens: int,
        max_queued_pairs: int,
        max_cached_scores: int,
        n_outputs: int,
    ) -> None:
        self.counters = Counters()
        self.score_cache = ScoreCache(max_cached_scores)
        self.failure: BaseException | None = None
        self.is_closed = False
        self._pid = os.getpid()
        self._tokenize = tokenize
        self._queue = JobQueue(max_queued_pairs, self.counters)
        self._threads: list[threading.Thread] = []
        try:
            self._start("deadlines", self._queue.answer_late_jobs)
            self._start("tokenizer", self._run_tokenizer)
            for number, scorer in enumerate(scorers):
                worker = Worker(
                    scorer,
                    self._queue,
                    self.counters,
                    max_batch_tokens=max_batch_tokens,
                    n_outputs=n_outputs,
                )
                self._start(f"scorer-{number}", worker.run)
        except BaseException:
            # the system has no thread left: those that it had must not keep the model
            self.close()
            raise

    @property
    def queued_pairs(self) -> int:
        """Different pairs in calls that are not answered yet."""
        return self._queue.queued_pairs

    @property
    def in_flight(self) -> int:
        """Sequences that a worker has taken and that are still waited for."""
        return self._queue.in_flight

    @property
    def is_of_this_process(self) -> bool:
        """Whether the threads run here: a forked child has the object, but not its threads."""
        return self._pid == os.getpid()

    def submit(self, job: Job) -> None:
        """Queue a job; its future answers, and may be cancelled at any time.

        :raises OverloadedError: if the queue is full and the job does not wait for a place.
        :raises EngineClosedError: after :meth:`close`.
        :raises EngineFailedError: after a thread or the device was lost.
        :raises ForkedProcessError: in a forked child.
        """
        if not self.is_of_this_process:
            raise ForkedProcessError(
                "this engine was made before the process forked and cannot run here: make it in "
                "the child, or start processes with multiprocessing.get_context('spawn')"
            )
        if not job.n_given:
            job.answer()
            return
        if self.score_cache.max_scores:
            job.recall(self.score_cache)
        self._queue.submit(job)

    def close(self) -> None:
        """Answer every caller with ``EngineClosedError`` and end the threads."""
        if not self.is_of_this_process:
            # another thread of the parent may have held the queue's lock when it forked
            return
        self.is_closed = True
        waiting = self._queue.stop(lambda: EngineClosedError("the engine was closed"))
        if waiting:
            logger.warning("the engine was closed while %d calls waited", waiting)
        end = time.monotonic() + _CLOSE_TIMEOUT_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(end - time.monotonic(), 0))

    def _start(self, name: str, run: Callable[[], None]) -> None:
        # daemon: an engine that nobody closed must not keep the interpreter from ending
        thread = threading.Thread(
            target=self._guard, args=(run,), name=f"bge-rerank-{name}", daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def _guard(self, run: Callable[[], None]) -> None:
        """Run a thread's loop; if the thread dies, answer its callers."""
        try:
            run()
        except BaseException as error:
            self._break(error)

    def _break(self, cause: BaseException) -> None:
        """Answer all callers, then log: a log that fails must not keep them waiting."""
        self.failure = cause
        message = f"the engine failed and cannot go on: {type(cause).__name__}: {cause}"
        self._queue.stop(lambda: caused_by(EngineFailedError(message), cause))
        # as text: a log that keeps its records would keep the model with the traceback
        lines = "".join(traceback.format_exception(cause)).rstrip()
        logger.critical("the engine failed and will answer no more calls: %s", lines)
        without_traceback(cause)

    def _run_tokenizer(self) -> None:
        limits = _TOKENIZE_PAIRS, _TOKENIZE_CHARACTERS
        while (work := self._queue.next_to_tokenize(*limits)) is not None:
            job, start, pairs = work
            try:
                sequences = self._sequences(job, pairs)
            except BaseException as error:
                if is_exit(error):
                    raise
                self._blame_pair(job, start, pairs, error)
            else:
                self._queue.add_sequences(job, start, sequences)

    def _sequences(self, job: Job, pairs: Sequence[TextPair]) -> list[list[TokenSequence]]:
        """Sequences of each pair.

        :raises RuntimeError: if a pair has none: its call would never be complete.
        """
        sequences = self._tokenize(pairs, job.layout)
        if len(sequences) != len(pairs) or not all(sequences):
            raise RuntimeError(
                f"token ids of {len(pairs)} pairs were expected, the tokenizer gave "
                f"{sum(map(bool, sequences))}"
            )
        return sequences

    def _blame_pair(
        self, job: Job, start: int, pairs: Sequence[TextPair], error: BaseException
    ) -> None:
        """Fail a job whose tokenization failed, naming the pair at fault if one alone fails too."""
        answer: InputError | ScoringError = ScoringError(f"tokenization failed: {error}")
        for number, pair in enumerate(pairs, start):
            try:
                self._sequences(job, [pair])
            except BaseException as alone:
                if is_exit(alone):
                    raise
                index, error = job.index_of(number), alone
                if isinstance(alone, InputError):
                    # the caller asked for that: no failure of the engine
                    job.fail(caused_by(InputError(f"document {index}: {alone}", index), alone))
                    return
                answer = InputError(f"document {index} cannot be tokenized: {alone}", index)
                break
        if job.fail(caused_by(answer, error)):
            self.counters.add(failures=1)
            logger.error("a call failed: %s", answer)
