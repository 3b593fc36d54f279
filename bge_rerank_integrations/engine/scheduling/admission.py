"""Who may enter the queue: bounds on its pairs and on its time, which is estimated; a waitlist.

The estimate is made from the measured speed and the calls in the queue. Methods are called under
the queue's lock, but for :meth:`Admission.log_refusal`; moments are those of the monotonic clock.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...errors import OverloadedError
from .job import Job, PendingSequence

logger = logging.getLogger(__name__)

# seconds without a refusal after which the next one is logged again
_QUIET_S = 10.0
# what a measurement keeps of its weight when the next one comes: about ten count
_FADING = 0.9
# a pass counts as at most so many times slower than those before it: the machine may have slept
_MAX_SLOWDOWN = 5.0
# an answer takes longer than its estimate as often as not, by a pass or a slower moment; under a
# steady overload every call is let in at the bound, and half of the answers would be late
_MARGIN = 1.1
# seconds over which the number of jobs in the queue is averaged
_MEMORY_S = 5.0


class Take(NamedTuple):
    """When sequences were taken for a forward pass, and whether others were left waiting."""

    moment: float
    others_waited: bool


class InFlight:
    """Sequences that workers have taken and that are still waited for."""

    def __init__(self) -> None:
        self._takes: dict[PendingSequence, Take] = {}
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._takes)

    def add(self, sequences: Sequence[PendingSequence], take: Take) -> None:
        """Remember sequences that a worker takes."""
        self._takes.update(dict.fromkeys(sequences, take))
        self.tokens += sum(map(len, sequences))

    def take_of(self, sequence: PendingSequence) -> Take | None:
        """When a sequence was taken; None if it is not in flight any more."""
        return self._takes.get(sequence)

    def remove(self, sequences: Iterable[PendingSequence]) -> None:
        """Forget sequences; some may be forgotten already."""
        for sequence in sequences:
            if self._takes.pop(sequence, None) is not None:
                self.tokens -= len(sequence)

    def clear(self) -> None:
        """Forget all."""
        self._takes.clear()
        self.tokens = 0


class _Ratio:
    """A ratio of two sums of which the older parts fade."""

    def __init__(self) -> None:
        self._above = self._below = 0.0

    def add(self, above: float, below: float) -> None:
        self._above = self._above * _FADING + above
        self._below = self._below * _FADING + below

    @property
    def value(self) -> float | None:
        """The ratio; None until there is something to divide by."""
        return self._above / self._below if self._below > 0 else None


class _Sizes:
    """Jobs by size: powers of 2, so that thousands of jobs need no loop over each."""

    def __init__(self) -> None:
        self.jobs = 0
        self.characters = 0
        self._of_power: dict[int, tuple[int, int]] = {}

    def add(self, characters: int, jobs: int) -> None:
        """Add a job, or take it away again.

        :param characters: its characters; negative to take it away.
        :param jobs: 1, or -1 to take it away.
        """
        self.jobs += jobs
        self.characters += characters
        power = characters.bit_length()
        count, total = self._of_power.get(power, (0, 0))
        self._of_power[power] = count + jobs, total + characters

    def characters_ahead(self, characters: int) -> int:
        """Characters of all jobs, of each at most so many; within one power of 2 rounded up."""
        return sum(min(total, count * characters) for count, total in self._of_power.values())


class WaitEstimate:
    """Measures the engine's speed, and estimates when a new call would be answered.

    The speed is that of all replicas together, in tokens a second, from one forward pass to the
    next, tokenization and failed passes included. Passes count that left others waiting: one that
    took all there was may be as slow for one sequence as for twenty. If such a pass is faster than
    the estimate, it replaces it: else a slow moment could be believed for ever.

    :param in_flight: what workers have taken.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._speed = _Ratio()
        self._tokens_per_character = _Ratio()
        self._sizes = _Sizes()
        self._mean_jobs = 0.0
        self._averaged_at = 0.0
        # end of the last pass, or when the queue was last empty
        self._measured_at = 0.0

    def enter(self, job: Job, now: float) -> None:
        """Count a job that was let in."""
        self._average(now)
        if not self._sizes.jobs:
            self._measured_at = now
        self._sizes.add(job.characters, 1)

    def leave(self, job: Job, now: float) -> None:
        """Forget a job that was let in."""
        self._average(now)
        self._sizes.add(-job.characters, -1)

    def add_tokenized(self, job: Job) -> None:
        """Learn how many tokens the characters of a tokenized job were."""
        self._tokens_per_character.add(job.tokens, job.characters)

    def add_pass(self, tokens: int, take: Take, now: float) -> None:
        """Learn from a forward pass that has ended.

        :param tokens: that it read.
        :param take: when its sequences were taken.
        """
        since, self._measured_at = self._measured_at, now
        speed = self._speed.value
        if take.others_waited:
            seconds = now - since
            if speed is not None:
                seconds = min(seconds, _MAX_SLOWDOWN * tokens / speed)
            self._speed.add(tokens, seconds)
        elif speed is not None and tokens > speed * (now - take.moment):
            self._speed = _Ratio()
            self._speed.add(tokens, now - take.moment)

    def seconds_until_answer(self, job: Job, now: float) -> float | None:
        """Seconds until a job would be answered that came in now; None before a measurement.

        Jobs take turns, a sequence each. So a job is done when it has had its own turns, and each
        other job as many, or fewer if it needs fewer: a small job passes large ones, and its
        estimate is below that of its place in line.

        What comes later takes turns too. While the queue is full, a job that leaves is followed by
        another: so other jobs count as a whole, not only what is left of them, and small ones that
        have been there for some seconds count as followed by others. (Where ``k`` others share a
        processor, a job takes ``k + 1`` times its own work, whatever their sizes; Kleinrock,
        Queueing Systems, volume 2, 4.4.) Without the first, equal calls would be answered after
        twice the estimate; without the second, large calls among many small ones far later.
        """
        self._average(now)
        own = job.characters
        others = max(
            self._sizes.characters_ahead(own), own * min(self._mean_jobs, self._sizes.jobs)
        )
        return self._seconds(own + others, self._in_flight.tokens)

    def seconds_of_queue(self) -> float | None:
        """Seconds that the jobs in the queue take altogether; None before a measurement."""
        return self._seconds(self._sizes.characters)

    def _seconds(self, characters: float, tokens: int = 0) -> float | None:
        speed, per_character = self._speed.value, self._tokens_per_character.value
        if speed is None or per_character is None:
            return None
        return (characters * per_character + tokens) / speed

    def _average(self, now: float) -> None:
        kept = math.exp((self._averaged_at - now) / _MEMORY_S)
        self._mean_jobs = self._mean_jobs * kept + self._sizes.jobs * (1 - kept)
        self._averaged_at = now


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
        seconds = self._estimate.seconds_until_answer(job, now)
        return None if seconds is None else _MARGIN * seconds
