"""Jobs of many callers, in one place: who may enter, what is tokenized and what is scored next.

No thread lives here; every method may be called from any thread. A job leaves through its future:
whether it is answered, has failed or was cancelled, the future's callback gives its place back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, RLock

from bge_rerank_integrations.engine.scheduling.admission import Admission
from bge_rerank_integrations.engine.scheduling.deadlines import Deadlines
from bge_rerank_integrations.engine.scheduling.in_flight import InFlight, Take
from bge_rerank_integrations.engine.scheduling.job import (
    Job,
    JobResult,
    PendingSequence,
    TextPair,
)
from bge_rerank_integrations.engine.scheduling.stats import Counters
from bge_rerank_integrations.engine.scheduling.wait_estimate import WaitEstimate
from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.sequence import TokenSequence
from bge_rerank_integrations.errors import DeadlineError, NonFiniteScoreError, RerankError

# Jobs in order of arrival, any of which may leave at once.
Line = OrderedDict[Job, None]


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
        # reentrant: answering a future under the lock runs its callback, which takes the lock; and
        # garbage collection may cancel a call, or end the engine, in a thread that holds it
        lock = RLock()
        self._lock = lock
        self._to_tokenize = Condition(lock)
        self._to_score = Condition(lock)
        self._to_watch = Condition(lock)
        # by future, so that a future needs no reference to its job: the two would be a cycle
        self._jobs: dict[Future[JobResult], Job] = {}
        self._untokenized: Line = OrderedDict()
        self._ready: Line = OrderedDict()
        self._deadlines = Deadlines()
        self._stopped: Callable[[], RerankError] | None = None

    @property
    def queued_pairs(self) -> int:
        """Different pairs in jobs that were let in and are not answered yet."""
        return self._admission.queued_pairs

    @property
    def in_flight(self) -> int:
        """Sequences that a worker has taken and that are still waited for."""
        return len(self._in_flight)

    def submit(self, job: Job) -> None:
        """Take a job in, or let it wait for a place.

        :raises OverloadedError: if there is no place, or no answer in time, and the job does not
            wait for one.
        :raises RerankError: the reason why the queue was stopped.
        """
        job.future.add_done_callback(self._release)
        with self._lock:
            if self._stopped is not None:
                raise self._stopped()
            if job.is_complete:
                self._answer(job)
                return
            has_place = self._admission.has_place_for(job)
            if has_place or job.queue_deadline > time.monotonic():
                try:
                    self._take_in(job, has_place)
                except BaseException:
                    # an interrupt: a job that nobody waits for must give its place back
                    job.future.cancel()
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
        with self._lock:
            while self._stopped is None and not self._untokenized:
                self._to_tokenize.wait()
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
        with self._lock:
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
        with self._lock:
            while wait and self._stopped is None and not self._ready:
                self._to_score.wait()
            if self._stopped is not None:
                return None
            taken: list[PendingSequence] = []
            budget = max_tokens
            while self._ready:
                job = next(iter(self._ready))
                budget -= len(job.ready[-1])
                if taken and budget < 0:
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
        with self._lock:
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
                    if job.fail(error):
                        errors.append(error)
                    continue
                if job.is_complete:
                    self._answer(job)
        return errors

    def fail(self, sequence: PendingSequence, error: RerankError) -> bool:
        """Answer the job of a sequence with an error; return whether it still had no answer."""
        with self._lock:
            self._in_flight.remove([sequence])
            return sequence.job.fail(error)

    def without_answered(self, batch: Sequence[PendingSequence]) -> list[PendingSequence]:
        """Drop the sequences that nobody waits for any more."""
        with self._lock:
            self._in_flight.remove(each for each in batch if each.job.is_done)
            return [each for each in batch if not each.job.is_done]

    def answer_late_jobs(self) -> None:
        """Answer every call whose time is over, when it is over, until the queue is stopped."""
        while self._stopped is None:
            with self._lock:
                now = time.monotonic()
                refused: Job | None = None
                for job in self._deadlines.pop_due(now):
                    if job.deadline <= now:
                        job.fail(DeadlineError("timeout_s passed before the scores were ready"))
                    elif self._admission.is_waitlisted(job):
                        refused = job if job.fail(self._admission.refusal(job)) else refused
                if refused is None and self._stopped is None:
                    self._to_watch.wait(self._deadlines.seconds_left(now))
                is_first = refused is not None and self._admission.is_first_refusal(refused)
            if is_first:
                self._admission.log_refusal()

    def stop(self, reason: Callable[[], RerankError]) -> int:
        """Answer every waiting job, and every later one, with an error.

        :param reason: makes the error; the first reason stays.
        :returns: how many jobs waited.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped = reason
            waiting = list(self._jobs.values())
            for job in waiting:
                job.fail(self._stopped())
            self._in_flight.clear()
            for condition in (self._to_tokenize, self._to_score, self._to_watch):
                condition.notify_all()
            return len(waiting)

    def _take_in(self, job: Job, has_place: bool) -> None:
        self._jobs[job.future] = job
        if has_place:
            self._admission.admit(job)
            self._tokenize(job)
        else:
            self._admission.waitlist(job)
            self._watch(job.queue_deadline, job)
        self._watch(job.deadline, job)

    def _answer(self, job: Job) -> None:
        self._counters.add(pairs=job.n_given)
        job.answer()

    def _tokenize(self, job: Job) -> None:
        self._untokenized[job] = None
        self._to_tokenize.notify()

    def _release(self, future: Future[JobResult]) -> None:
        """Give back what an answered or cancelled job held, and let the next ones in."""
        with self._lock:
            job = self._jobs.pop(future, None)
            if job is None:
                return
            for line in (self._untokenized, self._ready):
                line.pop(job, None)
            for entered in self._admission.release(job):
                self._tokenize(entered)
            job.forget()

    def _watch(self, moment: float, job: Job) -> None:
        if self._deadlines.add(moment, job):
            self._to_watch.notify()
