"""Who may enter the queue: a bound on its pairs, and a waitlist for those who wait for a place.

Methods are called under the queue's lock, but for :meth:`Admission.log_refusal`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from bge_rerank_integrations.engine.scheduling.job import Job
from bge_rerank_integrations.errors import OverloadedError

logger = logging.getLogger(__name__)


class Admission:
    """Counts the pairs in the queue, and keeps the waitlist in order.

    :param max_pairs: pairs in the queue, at most; a larger single job enters an empty queue.
    """

    def __init__(self, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        self._waitlist: OrderedDict[Job, None] = OrderedDict()
        self._has_refused = False
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

    def release(self, job: Job) -> list[Job]:
        """Take a job out, wherever it was, and let in those who now have a place.

        :returns: the jobs that have entered.
        """
        self._waitlist.pop(job, None)
        if job.admitted:
            self.queued_pairs -= job.size
        entered = []
        while self._waitlist and self._fits(next(iter(self._waitlist))):
            following, _ = self._waitlist.popitem(last=False)
            self.admit(following)
            entered.append(following)
        if not self._waitlist and self.queued_pairs <= self._max_pairs // 2:
            self._has_refused = False
        return entered

    def refusal(self) -> OverloadedError:
        """The error for a job without a place."""
        return OverloadedError(
            f"{self.queued_pairs} pairs are waiting and max_queued_pairs is {self._max_pairs}: "
            "try again later, or raise the limit"
        )

    def is_first_refusal(self) -> bool:
        """Whether this is worth a line in the log: one until the queue is half empty again.

        A flood of calls makes no flood of lines.
        """
        is_first, self._has_refused = not self._has_refused, True
        return is_first

    def log_refusal(self) -> None:
        """Log the first refusal; without the lock, for a slow log must not hold up callers."""
        logger.warning("the queue is full (%d pairs): calls are refused", self._max_pairs)

    def _fits(self, job: Job) -> bool:
        return not self.queued_pairs or self.queued_pairs + job.size <= self._max_pairs
