"""Jobs of many callers, in one place: who may enter, what is tokenized and what is scored next.

No thread lives here; every method may be called from any thread. A job that is answered leaves at
once. A caller may cancel its future at any moment, and garbage collection may do so in a thread
that holds the lock: so the future's callback never waits for the lock. It notes the cancellation,
and whoever holds the lock next acts on it.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Condition, Lock

from ...errors import DeadlineError, NonFiniteScoreError, RerankError
from ..scorers import Logits
from ..tokenization.pairs import TextPair, TokenSequence
from .admission import Admission, InFlight, Take, WaitEstimate
from .job import Deadlines, Job, JobResult, PendingSequence
from .stats import Counters

Line = OrderedDict[Job, None]
_STOP_TIMEOUT_S = 1.0


class JobQueue:
    """A bounded queue that tokenizes and scores its jobs in turns.

    :param max_pairs: pairs in unanswered jobs, at most; a larger single job enters an empty queue.
    :param counters: where answered pairs are counted.
    """

    def __init__(self, max_pairs: int, counters: Counters) -> None:
        self._counters = counters
        self._in_flight = InFlight()
        self._estimate = WaitEstimate(self._in_flight)
        self._admission = Admission(max_pairs, self._estimate)
        self._lock = Lock()
        self._to_tokenize = Condition(self._lock)
        self._to_score = Condition(self._lock)
        # wakes the watcher; garbage collection may put something in at any moment
        self._to_watch: SimpleQueue[None] = SimpleQueue()
        self._cancelled: deque[Future[JobResult]] = deque()
        # by future, so that a future needs no reference to its job: the two would be a cycle
        self._jobs: dict[Future[JobResult], Job] = {}
        self._untokenized: Line = OrderedDict()
        self._ready: Line = OrderedDict()
        self._deadlines = Deadlines()
        self._stopped: Callable[[], RerankError] | None = None

    @property
    def queued_pairs(self) -> int:
        """Different pairs in jobs that were let in and are not answered yet."""
        # under the lock, so that calls which were cancelled meanwhile have given back their places
        with self._locked():
            return self._admission.queued_pairs

    @property
    def in_flight(self) -> int:
        """Sequences that a worker has taken and that are still waited for."""
        with self._locked():
            return len(self._in_flight)

    def submit(self, job: Job) -> None:
        """Take a job in, or let it wait for a place.

        :raises OverloadedError: if the queue is full, or the deadline cannot be met.
        :raises RerankError: the reason why the queue was stopped.
        """
        with self._locked():
            if self._stopped is not None:
                raise self._stopped()
            has_place = self._admission.has_place_for(job)
            if has_place or job.queue_deadline > time.monotonic():
                try:
                    self._take_in(job, has_place)
                except BaseException:
                    # an interrupt: a job that nobody waits for must give its place back
                    self._remove(job)
                    raise
                return
            refusal = self._admission.refusal(job)
            is_first = self._admission.is_first_refusal(job)
        if is_first:
            self._admission.log_refusal()
        raise refusal

    def next_to_tokenize(
        self, max_pairs: int, max_characters: int
    ) -> tuple[Job, int, Sequence[TextPair]] | None:
        """Wait for pairs to tokenize; the limits let other jobs pass a long one.

        :param max_pairs: pairs at one time.
        :param max_characters: characters of more than one pair at one time.
        :returns: job, number of the first pair, pairs; None once the queue is stopped.
        """
        with self._locked():
            while self._stopped is None and not self._untokenized:
                self._wait(self._to_tokenize)
            if self._stopped is not None:
                return None
            job, _ = self._untokenized.popitem(last=False)
            start, pairs = job.next_pairs(max_pairs, max_characters)
            if not job.is_taken:
                self._untokenized[job] = None
            return job, start, pairs

    def add_sequences(
        self, job: Job, start: int, sequences: Sequence[Sequence[TokenSequence]]
    ) -> None:
        """Put tokenized pairs of a job in line for scoring."""
        with self._locked():
            if job.is_done:
                return
            job.add_sequences(start, sequences)
            if job.is_tokenized:
                self._estimate.add_tokenized(job)
            self._ready[job] = None
            self._to_score.notify()

    def next_to_score(self, max_tokens: int, *, wait: bool = True) -> list[PendingSequence] | None:
        """Take sequences of every waiting job in turn.

        :param max_tokens: tokens to take; at least one sequence is taken, if there is one.
        :param wait: wait until there is one.
        :returns: sequences; None once the queue is stopped.
        """
        with self._locked():
            while wait and self._stopped is None and not self._ready:
                self._wait(self._to_score)
            if self._stopped is not None:
                return None
            taken: list[PendingSequence] = []
            while self._ready:
                job = next(iter(self._ready))
                max_tokens -= len(job.ready[-1])
                if taken and max_tokens < 0:
                    break
                taken.append(job.ready.pop())
                self._ready.move_to_end(job)
                if not job.ready:
                    del self._ready[job]
            now = time.monotonic()
            self._in_flight.add(taken, Take(now, bool(self._ready or self._untokenized)))
            for job in {sequence.job for sequence in taken if not sequence.job.is_started}:
                job.is_started = True
                self._counters.observe("queue_wait_s", now - job.submitted_at)
            if self._ready:
                self._to_score.notify()
            return taken

    def add_logits(
        self, batch: Sequence[PendingSequence], logits: Logits
    ) -> list[NonFiniteScoreError]:
        """Hand logits `(n, outputs)` to the jobs of the ``n`` sequences.

        :returns: the errors of jobs that have failed now because a logit was not finite.
        """
        errors = []
        with self._locked():
            take = self._in_flight.take_of(batch[0])
            if take is not None:
                self._estimate.add_pass(sum(map(len, batch)), take, time.monotonic())
            self._in_flight.remove(batch)
            for sequence, row in zip(batch, logits, strict=True):
                job = sequence.job
                if job.is_done:
                    continue
                try:
                    job.add_logits(sequence.pair, row)
                except NonFiniteScoreError as error:
                    if self._fail(job, error):
                        errors.append(error)
                    continue
                if job.is_complete:
                    self._answer(job)
        return errors

    def fail(self, sequences: Iterable[PendingSequence], error: RerankError) -> int:
        """Answer the jobs of sequences with an error; return how many had no answer yet."""
        with self._locked():
            sequences = list(sequences)
            self._in_flight.remove(sequences)
            return sum(self._fail(sequence.job, error) for sequence in sequences)

    def fail_job(self, job: Job, error: RerankError) -> bool:
        """Answer a job with an error; return whether it had no answer yet."""
        with self._locked():
            return self._fail(job, error)

    def without_answered(self, batch: Sequence[PendingSequence]) -> list[PendingSequence]:
        """Drop the sequences that nobody waits for any more."""
        with self._locked():
            # asked once: a job may be cancelled at any moment
            waited_for = [each for each in batch if not each.job.is_done]
            self._in_flight.remove(set(batch).difference(waited_for))
            return waited_for

    def expire_jobs(self) -> None:
        """Answer every call whose time is over, when it is over, until the queue is stopped."""
        while self._stopped is None:
            with self._locked():
                now = time.monotonic()
                refused: Job | None = None
                for job in self._deadlines.pop_due(now):
                    if job.deadline <= now:
                        late = DeadlineError("timeout_s passed before the scores were ready")
                        self._fail(job, late)
                    elif self._admission.is_waitlisted(job):
                        is_refused = self._fail(job, self._admission.refusal(job))
                        refused = job if is_refused else refused
                seconds = self._deadlines.seconds_left(now)
                is_first = refused is not None and self._admission.is_first_refusal(refused)
            if is_first:
                self._admission.log_refusal()
            if self._stopped is None:
                with suppress(Empty):
                    self._to_watch.get(timeout=None if seconds is None else max(seconds, 0))

    def request_stop(self, reason: Callable[[], RerankError]) -> None:
        """Refuse every later job, for the first reason given; takes no lock."""
        if self._stopped is None:
            self._stopped = reason
        self._to_watch.put(None)

    def stop(self, reason: Callable[[], RerankError]) -> int:
        """Answer every waiting job, and every later one, with an error; return how many waited."""
        self.request_stop(reason)
        # garbage collection may close an engine in the thread that holds the lock: then the watcher
        # calls this next
        if not self._lock.acquire(timeout=_STOP_TIMEOUT_S):
            return 0
        try:
            self._in_flight.clear()
            self._to_tokenize.notify_all()
            self._to_score.notify_all()
            return sum(self._fail(job, reason()) for job in list(self._jobs.values()))
        finally:
            self._lock.release()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, after what was cancelled has left."""
        with self._lock:
            self._drop_cancelled()
            yield

    def _wait(self, condition: Condition) -> None:
        condition.wait()
        self._drop_cancelled()

    def _drop_cancelled(self) -> None:
        while self._cancelled:
            if (job := self._jobs.get(self._cancelled.popleft())) is not None:
                self._remove(job)

    def _note_cancelled(self, future: Future[JobResult]) -> None:
        # a job that is answered under the lock is not listed any more
        if future not in self._jobs:
            return
        self._cancelled.append(future)
        if self._lock.acquire(blocking=False):
            try:
                self._drop_cancelled()
            finally:
                self._lock.release()
        else:
            # this thread may hold it
            self._to_watch.put(None)

    def _take_in(self, job: Job, has_place: bool) -> None:
        self._jobs[job.future] = job
        if has_place:
            self._admission.admit(job)
            self._tokenize(job)
        else:
            self._admission.waitlist(job)
            self._watch(job.queue_deadline, job)
        self._watch(job.deadline, job)
        job.future.add_done_callback(self._note_cancelled)

    def _answer(self, job: Job) -> None:
        self._counters.add(pairs=job.n_given)
        self._remove(job)
        job.answer()

    def _fail(self, job: Job, error: RerankError) -> bool:
        self._remove(job)
        return job.fail(error)

    def _remove(self, job: Job) -> None:
        """Give back what a job held, and let the next ones in."""
        if self._jobs.pop(job.future, None) is None:
            return
        for line in (self._untokenized, self._ready):
            line.pop(job, None)
        for entered in self._admission.release(job):
            self._tokenize(entered)
        job.forget()

    def _tokenize(self, job: Job) -> None:
        self._untokenized[job] = None
        self._to_tokenize.notify()

    def _watch(self, moment: float, job: Job) -> None:
        if self._deadlines.add(moment, job):
            self._to_watch.put(None)
