"""When the time of which job is over."""

from __future__ import annotations

import heapq
import math
import threading
from itertools import count

from bge_rerank_integrations.engine.scheduling.job import Job

_SMALLEST_SWEEP = 64


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
