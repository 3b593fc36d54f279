"""More calls than can be answered: the queue is bounded by the time that its calls take.

The queue is run without threads and by a clock that stands still between forward passes, so that
nothing depends on how fast the machine is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from fakes import CLOCKS, FakeTokenizer, digests, tokenize

from bge_rerank_integrations import OverloadedError
from bge_rerank_integrations.engine.scheduling.job import Job
from bge_rerank_integrations.engine.scheduling.queue import JobQueue
from bge_rerank_integrations.engine.scheduling.stats import Counters
from bge_rerank_integrations.settings import CallOptions

# a document is 9 characters, which become 10 tokens: 25 documents a second
SECONDS_PER_TOKEN = 0.004
DOCUMENT_S = 10 * SECONDS_PER_TOKEN
BATCH_TOKENS = 40
TARGET_S = 5.0


@dataclass
class Device:
    """A queue and a device that takes 4 milliseconds a token, and one for every pass."""

    counters: Counters = field(default_factory=Counters)
    queue: JobQueue = field(init=False)
    now: float = 1_000.0
    slowdown: float = 1.0
    jobs: dict[Job, float] = field(default_factory=dict)
    latencies: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = JobQueue(100_000, self.counters)

    def submit(self, documents: int, **options: object) -> Job:
        """Make a call, and tokenize it if it was let in.

        :raises OverloadedError: if it is refused.
        """
        number = len(self.jobs) + len(self.latencies)
        pairs = [(f"{number}", f"{document:09}") for document in range(documents)]
        asked = CallOptions(**options)  # type: ignore[arg-type]
        job = Job(pairs, FakeTokenizer().layout(asked), 1, asked)  # type: ignore[arg-type]
        self.queue.submit(job)
        self.jobs[job] = self.now
        self.tokenize(job)
        return job

    def tokenize(self, job: Job) -> None:
        while job.admitted and not job.is_taken:
            work = self.queue.next_to_tokenize(256, 1_000_000)
            assert work is not None
            taken, start, pairs = work
            self.queue.add_sequences(taken, start, tokenize(pairs))

    def run_pass(self) -> None:
        """Score one batch; the clock stands at its end afterwards."""
        batch = self.queue.next_to_score(BATCH_TOKENS, wait=False)
        assert batch
        tokens = sum(map(len, batch))
        self.now += self.slowdown * (0.001 + SECONDS_PER_TOKEN * tokens)
        self.queue.add_logits(batch, digests([each.tokens for each in batch]))
        for job in [job for job in self.jobs if job.is_done]:
            begun = self.jobs.pop(job)
            if not job.future.cancelled():
                assert job.future.exception() is None
                self.latencies.append((job.size, self.now - begun))
        for job in self.jobs:
            self.tokenize(job)

    def run_until_empty(self) -> None:
        while self.queue.queued_pairs:
            self.run_pass()

    def measured(self) -> Device:
        """The same, after a call of several batches has shown its speed."""
        self.submit(40)
        self.run_until_empty()
        self.latencies.clear()
        return self


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device()
    for clock in CLOCKS:
        monkeypatch.setattr(clock, SimpleNamespace(monotonic=lambda: device.now))
    yield device
    # nothing is lost, and nothing is left
    device.run_until_empty()
    assert not device.jobs
    assert (device.queue.queued_pairs, device.queue.in_flight) == (0, 0)
    assert device.queue._estimate.seconds_of_queue() in (0.0, None)


def goodput(
    device: Device, sizes: list[int], load: float, max_wait_s: float | None
) -> tuple[float, list[float]]:
    """Calls of 40 seconds at a multiple of the capacity, by clients who wait 10 s.

    :returns: share of the time that went into answers within the target; hints of the refusals.
    """
    chooser = random.Random(0)
    start, end = device.now, device.now + 40
    next_at, hints = start, []
    while device.now < end:
        while next_at <= device.now:
            try:
                device.submit(chooser.choice(sizes), max_wait_s=max_wait_s)
            except OverloadedError as error:
                hints.append(error.retry_after_s or 0.0)
            next_at += chooser.expovariate(load / (DOCUMENT_S * sum(sizes) / len(sizes)))
        if device.queue.queued_pairs:
            device.run_pass()
        else:
            device.now = next_at
        for job, begun in list(device.jobs.items()):
            if device.now - begun > 10:
                job.future.cancel()
                del device.jobs[job]
    in_time = sum(size for size, latency in device.latencies if latency <= TARGET_S)
    return in_time * DOCUMENT_S / (device.now - start), hints


def test_without_a_bound_an_overload_leaves_no_answers(device: Device) -> None:
    share, hints = goodput(device, [5], 5, None)
    assert share < 0.1
    assert hints == []


@pytest.mark.parametrize("sizes", [[5], [25], [1, 1, 1, 1, 1, 10], [3] * 9 + [25]])
def test_at_five_times_the_capacity_nearly_all_of_it_becomes_answers(
    device: Device, sizes: list[int]
) -> None:
    share, hints = goodput(device, sizes, 5, TARGET_S)
    assert share > 0.9
    assert all(0 < hint < 2 * TARGET_S for hint in hints)


def test_calls_that_can_be_answered_are_not_refused(device: Device) -> None:
    share, hints = goodput(device, [1, 5], 0.7, TARGET_S)
    assert hints == []
    assert share == pytest.approx(0.7, abs=0.1)


def test_nothing_is_refused_before_the_speed_is_known(device: Device) -> None:
    for _ in range(50):
        device.submit(20, max_wait_s=0.1)


def test_a_call_is_refused_with_the_seconds_after_which_to_try_again(device: Device) -> None:
    device.measured().submit(25)
    with pytest.raises(
        OverloadedError, match=r"would take 2\.\d s, and .* leave 1\.0 s"
    ) as refused:
        device.submit(25, max_wait_s=1.0)
    # after the second that the other call takes there is an empty queue
    assert refused.value.retry_after_s == pytest.approx(1.0, rel=0.1)
    device.run_until_empty()
    device.submit(25, max_wait_s=1.0)


def test_a_call_is_refused_that_its_own_deadline_would_end(device: Device) -> None:
    device.measured().submit(25)
    with pytest.raises(OverloadedError, match=r"leave 1\.5 s"):
        device.submit(25, max_wait_s=60.0, timeout_s=1.5)
    device.submit(25, timeout_s=1.5).future.cancel()
    device.submit(25, max_wait_s=60.0, timeout_s=2.5)


def test_an_empty_queue_takes_any_call(device: Device) -> None:
    device.measured().submit(1_000, max_wait_s=0.1)


def test_a_small_call_passes_large_ones(device: Device) -> None:
    """Three calls of 10 seconds take turns with one of a document: it has a turn of four."""
    device.measured()
    for _ in range(3):
        device.submit(250)
    device.submit(1, max_wait_s=0.2)
    with pytest.raises(OverloadedError):
        device.submit(25, max_wait_s=3.5)
    device.submit(25, max_wait_s=4.5)
    while len(device.latencies) < 2:
        device.run_pass()
    (_, small), (_, large) = device.latencies
    assert small <= 0.2
    assert 3.5 < large < 4.5


def test_a_large_call_among_many_small_ones_is_not_believed_to_be_soon(device: Device) -> None:
    """What is in the queue takes a second, but is followed by the like of it."""
    device.measured()
    for _ in range(400):
        while len(device.jobs) < 20:
            device.submit(1)
        device.run_pass()
    with pytest.raises(OverloadedError, match=r"would take 1\d\.\d s"):
        device.submit(25, max_wait_s=10.0)


def test_after_a_burst_calls_are_let_in_as_soon_as_they_can_be_answered(device: Device) -> None:
    device.measured()
    for _ in range(12):
        device.submit(25)
    device.run_until_empty()
    # a second each
    for _ in range(3):
        device.submit(25, max_wait_s=4.0)
    device.run_until_empty()
    assert device.latencies[-1][1] <= 4.0


def test_the_estimate_follows_the_speed(device: Device) -> None:
    device.measured()
    device.slowdown = 4.0
    device.submit(100)
    device.run_until_empty()
    device.submit(25)
    with pytest.raises(OverloadedError, match=r"would take [78]\.\d s"):
        device.submit(25, max_wait_s=6.0)


def test_a_long_sleep_does_not_shut_small_calls_out(device: Device) -> None:
    """Their passes leave nothing waiting, and still show that the estimate is too slow."""
    device.measured()
    device.slowdown = 1_000.0
    device.submit(40)
    device.run_until_empty()
    device.slowdown = 1.0
    for _ in range(20):
        device.submit(3, max_wait_s=TARGET_S)
        device.run_pass()
    device.submit(3)
    device.submit(3, max_wait_s=0.5)


def test_one_very_slow_pass_is_not_believed_whole(device: Device) -> None:
    """The machine may have slept: such a pass counts as five times slower, not a thousand times."""
    device.measured().submit(25)
    device.slowdown = 1_000.0
    device.run_pass()
    device.slowdown = 1.0
    # 46 documents take 1.8 s at the true speed, and three times as long at the measured one
    device.submit(25, max_wait_s=12.0)
    with pytest.raises(OverloadedError):
        device.submit(25, max_wait_s=1.0)


def test_what_a_device_has_in_hand_is_waited_for_too(device: Device) -> None:
    device.measured().submit(4)
    in_hand = device.queue.next_to_score(BATCH_TOKENS, wait=False)
    # a pass of 0.16 s, then a document of 0.04 s, and the margin
    with pytest.raises(OverloadedError, match=r"would take 0\.3 s"):
        device.submit(1, max_wait_s=0.15)
    device.submit(1, max_wait_s=0.3)
    assert in_hand is not None
    device.queue.add_logits(in_hand, digests([each.tokens for each in in_hand]))
    device.jobs = {job: begun for job, begun in device.jobs.items() if not job.is_done}


def test_half_of_the_replicas_take_twice_the_time(device: Device) -> None:
    """The speed is that of all replicas, whose passes end in turns."""
    device.measured()
    device.submit(40)
    batches = []
    while batches or device.queue.queued_pairs:
        while len(batches) < 2 and (batch := device.queue.next_to_score(BATCH_TOKENS, wait=False)):
            batches.append(batch)
        device.now += 0.08
        batch = batches.pop(0)
        device.queue.add_logits(batch, digests([each.tokens for each in batch]))
    device.jobs.clear()
    device.submit(50)
    # a document takes 20 milliseconds now
    with pytest.raises(OverloadedError, match=r"would take 2\.\d s"):
        device.submit(50, max_wait_s=1.0)


def test_long_documents_count_as_far_as_they_are_read(device: Device) -> None:
    def job(**options: object) -> Job:
        asked = CallOptions(**options)  # type: ignore[arg-type]
        layout = FakeTokenizer().layout(asked)
        return Job([("q", "x" * 100_000)], layout, 1, asked)  # type: ignore[arg-type]

    assert job().characters == 4 * 512
    assert job(max_length=64).characters == 4 * 64
    assert job(long_documents="window").characters > 100_000


def test_a_call_may_wait_until_it_can_be_answered_in_time(device: Device) -> None:
    device.measured().submit(25)
    waiting = device.submit(25, max_wait_s=1.5, queue_timeout_s=10)
    assert not waiting.admitted
    device.run_until_empty()
    assert waiting.future.done()


def test_a_flood_of_refusals_is_one_line_in_the_log(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.measured()
    for spell in (1, 2):
        for _ in range(20):
            device.submit(25)
            with pytest.raises(OverloadedError):
                device.submit(25, max_wait_s=1.0)
            device.run_until_empty()
        assert caplog.text.count("calls are refused") == spell
        device.now += 11
        device.submit(1)
        device.run_until_empty()


def test_a_call_has_waited_when_its_first_batch_begins(device: Device) -> None:
    device.submit(4)
    device.submit(3)
    device.run_until_empty()
    device.submit(1)
    device.run_until_empty()
    wait = device.counters.snapshot()["queue_wait_s"]
    assert sum(wait.counts) == 3
    assert wait.total == pytest.approx(0.0)
    first = device.submit(40)
    device.run_pass()
    waiting = device.submit(1)
    device.now += 0.4
    device.run_until_empty()
    wait = device.counters.snapshot()["queue_wait_s"]
    assert first.is_started
    assert waiting.is_started
    assert sum(wait.counts) == 5
    assert wait.total == pytest.approx(0.4)
    # between a quarter and half a second
    assert wait.counts[wait.bounds.index(0.5)] == 1
