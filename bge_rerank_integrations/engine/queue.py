"""Jobs of many callers, in one place: who may enter, what is tokenized and what is scored next.

No thread lives here; every method may be called from any thread. A job leaves through its future:
whether it is answered, has failed or was cancelled, the future's callback gives its place back.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from threading import Condition, RLock

from bge_rerank_integrations.engine.batching import TokenizedPair
from bge_rerank_integrations.engine.jobs import Job, Piece, TextPair
from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.errors import DeadlineError, OverloadedError, RerankError


class JobQueue:
    """A bounded queue that tokenizes and scores its jobs in turns.

    :param max_pairs: pairs in unanswered jobs, at most; a larger single job enters an empty queue.
    """

    def __init__(self, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        # reentrant: answering a future under the lock runs its callback, which takes the lock
        lock = RLock()
        self._lock = lock
        self._to_tokenize = Condition(lock)
        self._to_score = Condition(lock)
        self._jobs: dict[Job, None] = {}
        self._backlog: deque[Job] = deque()
        self._untokenized: deque[Job] = deque()
        self._ready: OrderedDict[Job, None] = OrderedDict()
        self._stopped: Callable[[], RerankError] | None = None
        self.queued_pairs = 0
        self.in_flight = 0

    def submit(self, job: Job) -> None:
        """Take a job in, or let it wait for a place.

        :raises OverloadedError: if there is no place and the job does not wait for one.
        :raises RerankError: the reason why the queue was stopped.
        """
        with self._lock:
            if self._stopped is not None:
                raise self._stopped()
            # behind the backlog, or a large job would wait there for ever
            if not self._backlog and self._has_room_for(job):
                self._admit(job)
            elif job.queue_deadline is not None and job.queue_deadline <= time.monotonic():
                raise self._overloaded()
            else:
                self._backlog.append(job)
                self._to_tokenize.notify()
            self._jobs[job] = None
        job.future.add_done_callback(lambda _: self._release(job))

    def next_to_tokenize(self, count: int) -> tuple[Job, int, Sequence[TextPair]] | None:
        """Wait for pairs to tokenize; meanwhile answer the calls whose time is over.

        :param count: pairs at one time, so that a long job lets others pass.
        :returns: job, slot of the first pair, pairs; None once the queue is stopped.
        """
        with self._lock:
            while self._stopped is None:
                wait_s = self._expire(time.monotonic())
                if self._untokenized:
                    job = self._untokenized.popleft()
                    start, pairs = job.next_pairs(count)
                    if not job.is_tokenized:
                        self._untokenized.append(job)
                    return job, start, pairs
                self._to_tokenize.wait(wait_s)
            return None

    def add_sequences(
        self, job: Job, start: int, sequences: Sequence[Sequence[TokenizedPair]]
    ) -> None:
        """Put tokenized pairs of a job in line for scoring."""
        with self._lock:
            if job.done:
                return
            job.add_sequences(start, sequences)
            self._ready[job] = None
            self._to_score.notify()

    def next_to_score(self, max_tokens: int) -> list[Piece] | None:
        """Wait for sequences, and take some of every waiting job in turn.

        :param max_tokens: tokens to take; at least one sequence is taken.
        :returns: sequences; None once the queue is stopped.
        """
        with self._lock:
            while self._stopped is None and not self._ready:
                self._to_score.wait()
            if self._stopped is not None:
                return None
            pieces: list[Piece] = []
            room = max_tokens
            while self._ready:
                job = next(iter(self._ready))
                room -= len(job.ready[-1])
                if pieces and room < 0:
                    break
                pieces.append(job.ready.pop())
                self._ready.move_to_end(job)
                if not job.ready:
                    del self._ready[job]
            self.in_flight += len(pieces)
            if self._ready:
                self._to_score.notify()
            return pieces

    def add_logits(self, pieces: Sequence[Piece], logits: Logits) -> None:
        """Hand logits `(n, layers)` to the jobs of the ``n`` pieces."""
        with self._lock:
            self.in_flight -= len(pieces)
            for piece, row in zip(pieces, logits, strict=True):
                if not piece.job.done:
                    piece.job.add_logits(piece.slot, row)

    def fail(self, piece: Piece, error: RerankError) -> None:
        """Answer the job of a piece with an error."""
        with self._lock:
            self.in_flight -= 1
            piece.job.fail(error)

    def without_answered(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Drop the pieces that nobody waits for any more."""
        with self._lock:
            waited_for = [piece for piece in pieces if not piece.job.done]
            self.in_flight -= len(pieces) - len(waited_for)
            return waited_for

    def stop(self, reason: Callable[[], RerankError]) -> None:
        """Answer every waiting job, and every later one, with an error.

        :param reason: makes the error; the first reason stays.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped = reason
            for job in list(self._jobs):
                job.fail(reason())
            self.in_flight = 0
            self._to_tokenize.notify_all()
            self._to_score.notify_all()

    def _has_room_for(self, job: Job) -> bool:
        return not self.queued_pairs or self.queued_pairs + job.size <= self._max_pairs

    def _admit(self, job: Job) -> None:
        job.admitted = True
        self.queued_pairs += job.size
        self._untokenized.append(job)
        self._to_tokenize.notify()

    def _release(self, job: Job) -> None:
        """Give back what an answered or cancelled job held, and let the next ones in."""
        with self._lock:
            self._jobs.pop(job, None)
            self._ready.pop(job, None)
            for line in (self._backlog, self._untokenized):
                if job in line:
                    line.remove(job)
            if job.admitted:
                self.queued_pairs -= job.size
            job.forget()
            while self._backlog and self._has_room_for(self._backlog[0]):
                self._admit(self._backlog.popleft())

    def _expire(self, now: float) -> float | None:
        """Answer the jobs whose time is over; return the seconds until the next one's."""
        for job in list(self._jobs):
            if job.deadline is not None and job.deadline <= now:
                job.fail(DeadlineError("the call's timeout_s passed before its scores were ready"))
        for job in list(self._backlog):
            if job.queue_deadline is not None and job.queue_deadline <= now:
                job.fail(self._overloaded())
        deadlines = [job.deadline for job in self._jobs if job.deadline is not None]
        deadlines += [job.queue_deadline for job in self._backlog if job.queue_deadline is not None]
        return min(deadlines) - now if deadlines else None

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f"{self.queued_pairs} pairs are waiting and max_queued_pairs is {self._max_pairs}: "
            "try again later, or raise the limit"
        )
