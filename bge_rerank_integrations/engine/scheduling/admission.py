"""Who may enter the queue, and until when: bounds on its pairs and its time, waitlist, deadlines.

Methods are called under the queue's lock, but for :meth:`Admission.log_refusal`.
"""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from collections import OrderedDict
from itertools import count

from bge_rerank_integrations.engine.scheduling.job import Job
from bge_rerank_integrations.engine.scheduling.wait_estimate import WaitEstimate
from bge_rerank_integrations.errors import OverloadedError

logger = logging.getLogger(__name__)

# seconds without a refusal after which the next one is logged again
_QUIET_S = 10.0
_SMALLEST_SWEEP = 64


class Admission:
    """Counts the pairs in the queue, and keeps the waitlist in order.

    Every job may enter an empty queue, however large it is and however long it takes.

    :param max_pairs: pairs in the queue, at most.
    :param estimate: when a job would be answered; asked for jobs that have a ``max_wait_s``.
    """

    def __init__(self, max_pairs: int, estimate: WaitEstimate) -> None:
        self._max_pairs = max_pairs
        self._estimate = estimate
        self._waitlist: OrderedDict[Job, None] = OrderedDict()
        self._has_refused = False
        self._quiet_until = 0.0
        self.queued_pairs = 0

    def has_place_for(self, job: Job) -> bool:
        """Whether a new job may enter at once."""
        # behind the waitlist, or a large job would wait forever
        return not self._waitlist and self._fits(job)

    def is_waitlisted(self, job: Job) -> bool:
        """Whether a job still waits for a place."""
        return job in self._waitlist

    def waitlist(self, job: Job) -> None:
        """Put a job at the end of the waitlist."""
        self._waitlist[job] = None

    def admit(self, job: Job) -> None:
        """Let a job in."""
        job.admitted = True
        self.queued_pairs += job.size
        self._estimate.enter(job, time.monotonic())

    def release(self, job: Job) -> list[Job]:
        """Take a job out, wherever it was, and let in those who now have a place.

        :returns: the jobs that have entered.
        """
        self._waitlist.pop(job, None)
        if job.admitted:
            self.queued_pairs -= job.size
            self._estimate.leave(job, time.monotonic())
        entered = []
        while self._waitlist and self._fits(next(iter(self._waitlist))):
            following, _ = self._waitlist.popitem(last=False)
            self.admit(following)
            entered.append(following)
        is_quiet = time.monotonic() >= self._quiet_until
        if is_quiet and not self._waitlist and self.queued_pairs <= self._max_pairs // 2:
            self._has_refused = False
        return entered

    def refusal(self, job: Job) -> OverloadedError:
        """The error for a job without a place."""
        now = time.monotonic()
        seconds, patience_s = self._seconds_until_answer(job, now), job.patience_s(now)
        queue_s = self._estimate.seconds_of_queue()
        if seconds is not None and seconds > patience_s:
            return OverloadedError(
                f"the answer would take {seconds:.1f} s, and max_wait_s and timeout_s leave "
                f"{patience_s:.1f} s: try again later, or raise the limits",
                # a job that is too long for any queue but an empty one waits for all of it
                None if queue_s is None else min(seconds - patience_s, queue_s),
            )
        excess = min(self.queued_pairs + job.size - self._max_pairs, self.queued_pairs)
        return OverloadedError(
            f"{self.queued_pairs} pairs are waiting and max_queued_pairs is {self._max_pairs}: "
            "try again later, or raise the limit",
            None if queue_s is None else queue_s * max(excess, 0) / max(self.queued_pairs, 1),
        )

    def is_first_refusal(self, job: Job) -> bool:
        """Whether this is worth a line in the log: one until the queue is half empty again.

        A flood of calls makes no flood of lines.
        """
        is_first, self._has_refused = not self._has_refused, True
        if job.max_wait_s is not None:
            # a queue that is full by its time is always half empty by its pairs
            self._quiet_until = time.monotonic() + _QUIET_S
        return is_first

    def log_refusal(self) -> None:
        """Log the first refusal; without the lock, for a slow log must not hold up callers."""
        logger.warning("the queue is full (%d pairs): calls are refused", self.queued_pairs)

    def _fits(self, job: Job) -> bool:
        if not self.queued_pairs:
            return True
        if self.queued_pairs + job.size > self._max_pairs:
            return False
        now = time.monotonic()
        seconds = self._seconds_until_answer(job, now)
        return seconds is None or seconds <= job.patience_s(now)

    def _seconds_until_answer(self, job: Job, now: float) -> float | None:
        """Seconds until a job's answer; None if it is unknown or does not matter."""
        if job.max_wait_s is None:
            return None
        return self._estimate.seconds_until_answer(job, now)


class Deadlines:
    """A heap of moments on the monotonic clock, soonest first, and the jobs that they belong to.

    A job that is answered in time stays in the heap until it is swept: taking it out of the middle
    would cost more than the sweep.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._sweep_at = _SMALLEST_SWEEP
        # breaks ties, so that jobs are never compared
        self._number = count()

    def add(self, moment: float, job: Job) -> bool:
        """Remember a moment; infinity is never.

        :returns: whether it is the soonest of all.
        """
        if moment == math.inf:
            return False
        if len(self._heap) >= self._sweep_at:
            # the cost is spread over as many additions
            self._heap = [entry for entry in self._heap if not entry[2].is_done]
            heapq.heapify(self._heap)
            self._sweep_at = max(2 * len(self._heap), _SMALLEST_SWEEP)
        heapq.heappush(self._heap, (moment, next(self._number), job))
        return self._heap[0][2] is job

    def pop_due(self, now: float) -> list[Job]:
        """Take the jobs whose moments have come; a job with two moments may come twice."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the soonest moment, as a lock can wait for them; None if there is none."""
        return min(self._heap[0][0] - now, threading.TIMEOUT_MAX) if self._heap else None
