"""The threads behind an engine: one tokenizes, one a device scores, one watches the deadlines.

While a batch runs, calls gather in the queue and the next batch takes from all of them: nothing
waits for a timer. Every caller is answered. A device that is lost fails the calls that it was
scoring, and the others go on; a thread that dies, or the last device, fails all callers at once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import torch

from ...errors import EngineClosedError, EngineFailedError, InputError, ScoringError
from ..loading.devices import select_device
from ..loading.model import LoadedModel
from ..threads import gate, start_thread
from ..tokenization.pairs import PairTokenizer, TextPair, TokenSequence
from .job import Job
from .queue import JobQueue
from .stats import Counters
from .worker import Worker, caused_by, is_exit, without_traceback

logger = logging.getLogger(__name__)

# Tokenized at one time: the first pairs are scored while the next are tokenized, and a call with
# very long documents lets others pass.
_TOKENIZE_PAIRS = 256
_TOKENIZE_CHARACTERS = 1_000_000
# how long closing waits for a forward pass that is under way
_CLOSE_TIMEOUT_S = 10.0


class Scheduler:
    """Runs jobs on a loaded model, until it is closed or has failed; then it lets go of the model.

    :param model: tokenizer and scorers; each scorer has a thread of its own.
    :param max_queued_pairs: pairs that may wait.
    """

    def __init__(self, model: LoadedModel, max_queued_pairs: int) -> None:
        self.model: LoadedModel | None = model
        self.counters = Counters()
        self.failure: BaseException | None = None
        self.lost_devices: tuple[str, ...] = ()
        self.is_closed = False
        self._pid = os.getpid()
        self.queue = JobQueue(max_queued_pairs, self.counters)
        self._threads: list[threading.Thread] = []
        self._n_scoring = len(model.scorers)
        self._lost = threading.Lock()
        try:
            self._start("deadlines", self._watch)
            self._start("tokenizer", partial(self._run_tokenizer, model.tokenizer))
            for number, (scorer, device) in enumerate(
                zip(model.scorers, model.devices, strict=True)
            ):
                worker = Worker(
                    scorer,
                    self.queue,
                    self.counters,
                    max_batch_tokens=model.max_batch_tokens,
                    n_outputs=len(model.layers),
                )
                self._start(f"scorer-{number}", partial(self._run_worker, worker, device))
        except BaseException:
            # the system has no thread left: those that it had must not keep the model
            self.close()
            raise

    @property
    def is_of_this_process(self) -> bool:
        """Whether the threads run here: a forked child has the object, but not its threads."""
        return self._pid == os.getpid()

    def submit(self, job: Job) -> None:
        """Queue a job; its future answers, and may be cancelled at any time.

        :raises OverloadedError: if the queue is full and the job does not wait for a place.
        :raises EngineClosedError: after :meth:`close`.
        :raises EngineFailedError: after a thread or the last device was lost.
        """
        if job.n_given:
            self.queue.submit(job)
        else:
            job.answer()

    def close(self) -> None:
        """Answer every caller with ``EngineClosedError`` and end the threads."""
        self.is_closed = True
        self.model = None
        self.queue.request_stop(_closed)
        if not self.is_of_this_process or threading.current_thread() in self._threads:
            # no lock may be waited for: another thread of the parent may have held it when it
            # forked; and garbage collection may close an engine in a thread that holds it, and then
            # the watcher does the rest
            return
        self._stop_waiting()
        end = time.monotonic() + _CLOSE_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))

    def _stop_waiting(self) -> None:
        if waiting := self.queue.stop(_closed):
            logger.warning("the engine was closed while %d calls waited", waiting)

    def _start(self, name: str, run: Callable[[], None]) -> None:
        self._threads.append(start_thread(name, partial(self._guard, run)))

    def _guard(self, run: Callable[[], None]) -> None:
        """Run a thread's loop; if the thread dies, answer its callers."""
        try:
            run()
        except BaseException as error:
            self._break(error)

    def _break(self, cause: BaseException) -> None:
        """Answer all callers, then log: a log that fails must not keep them waiting."""
        self.failure = cause
        self.model = None
        message = f"the engine failed and cannot go on: {type(cause).__name__}: {cause}"
        self.queue.stop(lambda: caused_by(EngineFailedError(message), cause))
        _log_lost("the engine failed and will answer no more calls", cause)

    def _watch(self) -> None:
        self.queue.expire_jobs()
        self._stop_waiting()

    def _run_worker(self, worker: Worker, device: torch.device) -> None:
        """Score until the queue is stopped, or the device is lost: then the others go on."""
        try:
            select_device(device)
            worker.run()
        except BaseException as error:
            with self._lost:
                self._n_scoring -= 1
                if not self._n_scoring:
                    raise
                self.lost_devices = (*self.lost_devices, str(device))
            cause = error
        else:
            return
        lost = ScoringError(f"{device} was lost while it scored this call: {cause}")
        self.counters.add(failures=self.queue.fail(worker.held, caused_by(lost, cause)))
        _log_lost(f"{device} is lost, the other devices go on", cause)

    def _run_tokenizer(self, tokenize: PairTokenizer) -> None:
        limits = _TOKENIZE_PAIRS, _TOKENIZE_CHARACTERS
        while (work := self.queue.next_to_tokenize(*limits)) is not None:
            job, start, pairs = work
            with gate:
                try:
                    sequences = _sequences(tokenize, job, pairs)
                except BaseException as error:
                    if is_exit(error):
                        raise
                    self._blame_pair(tokenize, job, start, pairs, error)
                else:
                    self.queue.add_sequences(job, start, sequences)

    def _blame_pair(
        self,
        tokenize: PairTokenizer,
        job: Job,
        start: int,
        pairs: Sequence[TextPair],
        error: BaseException,
    ) -> None:
        """Fail a job whose tokenization failed, naming the pair at fault if one alone fails too."""
        answer: InputError | ScoringError = ScoringError(f"tokenization failed: {error}")
        for number, pair in enumerate(pairs, start):
            try:
                _sequences(tokenize, job, [pair])
            except BaseException as alone:
                if is_exit(alone):
                    raise
                index, error = job.index_of(number), alone
                if isinstance(alone, InputError):
                    # the caller asked for that: no failure of the engine
                    self.queue.fail_job(
                        job, caused_by(InputError(f"document {index}: {alone}", index), alone)
                    )
                    return
                answer = InputError(f"document {index} cannot be tokenized: {alone}", index)
                break
        if self.queue.fail_job(job, caused_by(answer, error)):
            self.counters.add(failures=1)
            logger.error("a call failed: %s", answer)


def _sequences(
    tokenize: PairTokenizer, job: Job, pairs: Sequence[TextPair]
) -> list[list[TokenSequence]]:
    """Sequences of each pair.

    :raises RuntimeError: if a pair has none: its call would never be complete.
    """
    sequences = tokenize(pairs, job.layout)
    if len(sequences) != len(pairs) or not all(sequences):
        raise RuntimeError(
            f"token ids of {len(pairs)} pairs were expected, the tokenizer gave "
            f"{sum(map(bool, sequences))}"
        )
    return sequences


def _closed() -> EngineClosedError:
    return EngineClosedError("the engine was closed")


def _log_lost(what: str, cause: BaseException) -> None:
    # as text: a log that keeps its records would keep the model with the traceback
    logger.critical("%s: %s", what, "".join(traceback.format_exception(cause)).rstrip())
    without_traceback(cause)
