"""Calls whose time is over, and a queue that is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Event, Semaphore, Timer
from typing import Any

import pytest
from callers import (
    GRACE_S,
    PATIENCE_S,
    assert_works,
    error_of,
    expected,
    in_thread,
    until,
    wait_until,
)
from fakes import FakeScorer, Logits, MakeEngine, TokenSequence, digests, tokenize

from bge_rerank_integrations import ConfigurationError, DeadlineError, OverloadedError, RerankEngine

METHODS: list[Callable[..., Any]] = [
    lambda engine, **options: engine.score("q", ["late"], **options),
    lambda engine, **options: engine.rerank("q", ["late"], **options),
    lambda engine, **options: engine.score_pairs([("q", "late")], **options),
]


@pytest.mark.parametrize("call", METHODS)
def test_a_forward_that_outlasts_the_deadline(
    make_engine: MakeEngine, call: Callable[..., Any]
) -> None:
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate))
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="timeout_s passed"):
        call(engine, timeout_s=0.1)
    assert 0.1 <= time.monotonic() - started < 0.1 + GRACE_S
    assert engine.stats().queued_pairs == 0
    gate.set()
    assert_works(engine)


def test_a_tokenization_that_outlasts_the_deadline(make_engine: MakeEngine) -> None:
    gate = Event()

    def slow(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        assert gate.wait(PATIENCE_S)
        return tokenize(pairs)

    engine = make_engine(tokenize=slow)
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        engine.score("q", ["late"], timeout_s=0.1)
    assert time.monotonic() - started < 0.1 + GRACE_S
    gate.set()
    assert_works(engine)


def test_deadlines_are_kept_in_any_order(make_engine: MakeEngine) -> None:
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate))
    calls = [
        in_thread(engine.score, "q", ["late"], timeout_s=timeout_s)
        for timeout_s in (60, 0.3, 0.1, 0.2)
    ]
    for call in calls[1:]:
        assert isinstance(error_of(call), DeadlineError)
    assert not calls[0].done()
    gate.set()
    assert calls[0].result(PATIENCE_S) == expected("q", ["late"])


@pytest.mark.parametrize("timeout_s", [0, -1, -1e300, float("-inf")])
@pytest.mark.parametrize("call", METHODS)
def test_a_deadline_that_is_over_already(
    make_engine: MakeEngine, call: Callable[..., Any], timeout_s: float
) -> None:
    engine = make_engine(FakeScorer(gate=(gate := Event())))
    with pytest.raises(DeadlineError):
        call(engine, timeout_s=timeout_s)
    gate.set()
    assert_works(engine)


@pytest.mark.parametrize("timeout_s", [1e9, 1e300, float("inf")])
@pytest.mark.parametrize("call", METHODS)
def test_a_deadline_further_away_than_a_clock_can_count(
    make_engine: MakeEngine, call: Callable[..., Any], timeout_s: float
) -> None:
    engine = make_engine()
    call(engine, timeout_s=timeout_s)
    assert_works(engine)


@pytest.mark.parametrize("timeout_s", ["5", float("nan"), True, [1]])
@pytest.mark.parametrize("call", METHODS)
def test_a_deadline_that_is_no_number(
    make_engine: MakeEngine, call: Callable[..., Any], timeout_s: Any
) -> None:
    engine = make_engine()
    with pytest.raises(ConfigurationError, match="timeout_s must be None or a number of seconds"):
        call(engine, timeout_s=timeout_s)
    assert_works(engine)


def full_engine(make_engine: MakeEngine, gate: Event, **settings: Any) -> RerankEngine:
    """An engine with a call of 4 pairs in its queue of 4."""
    engine = make_engine(FakeScorer(gate=gate), max_queued_pairs=4, **settings)
    held = in_thread(engine.score, "q", ["a", "b", "c", "d"])
    wait_until(lambda: engine.stats().queued_pairs == 4)
    assert not held.done()
    return engine


@pytest.mark.parametrize("queue_timeout_s", [0, 0.1])
def test_a_full_queue_refuses_in_time(make_engine: MakeEngine, queue_timeout_s: float) -> None:
    engine = full_engine(make_engine, gate := Event(), queue_timeout_s=queue_timeout_s)
    started = time.monotonic()
    for call in METHODS:
        with pytest.raises(OverloadedError, match="4 pairs are waiting and max_queued_pairs is 4"):
            call(engine)
    waited_s = time.monotonic() - started
    assert 3 * queue_timeout_s <= waited_s < 3 * queue_timeout_s + GRACE_S
    gate.set()
    wait_until(lambda: engine.stats().queued_pairs == 0)
    assert_works(engine)


def test_the_call_that_waits_for_a_place_gets_it(make_engine: MakeEngine) -> None:
    engine = full_engine(make_engine, gate := Event(), queue_timeout_s=PATIENCE_S)
    patient = in_thread(engine.score, "q", ["e"])
    hurried = in_thread(engine.score, "q", ["f"], timeout_s=0.05)
    assert isinstance(error_of(hurried), DeadlineError)
    gate.set()
    assert patient.result(PATIENCE_S) == expected("q", ["e"])
    assert_works(engine)


@pytest.mark.parametrize("call", METHODS)
def test_one_call_may_wait_for_a_place_where_others_are_refused(
    make_engine: MakeEngine, call: Callable[..., Any]
) -> None:
    engine = full_engine(make_engine, gate := Event())
    patient = in_thread(call, engine, queue_timeout_s=PATIENCE_S)
    with pytest.raises(OverloadedError):
        call(engine)
    assert not patient.done()
    gate.set()
    assert patient.result(PATIENCE_S)
    assert_works(engine)


def test_a_stream_that_has_begun_is_not_refused_later(make_engine: MakeEngine) -> None:
    """Its first pairs may be refused; what was scored by then would be lost with the next ones."""
    engine = make_engine(FakeScorer(gate=(gate := Event())), max_queued_pairs=8)
    others: list[Future[list[float]]] = []

    def pairs() -> Iterator[tuple[str, str]]:
        for number in range(40):
            queued = engine.stats().queued_pairs
            if queued and not others:
                # the stream has begun: somebody else takes what is left of the queue
                others.append(in_thread(engine.score, "q", [f"{n}" for n in range(8 - queued)]))
                wait_until(lambda: engine.stats().queued_pairs == 8)
                Timer(0.2, gate.set).start()
            yield "q", f"{number}"

    assert engine.score_pairs(pairs()) == expected("q", [f"{number}" for number in range(40)])
    assert others
    assert_works(engine)


def test_a_stream_that_has_begun_does_not_wait_until_its_estimate_fits(
    make_engine: MakeEngine,
) -> None:
    """Its second chunk cannot be answered within ``max_wait_s``: the first one is before it."""

    def slow(batch: Sequence[TokenSequence]) -> Logits:
        time.sleep(0.002)
        return digests(batch)

    scorer = FakeScorer(slow, gate=(gate := Event()))
    engine = make_engine(scorer, max_queued_pairs=400)
    gate.set()
    # the engine learns its speed: 64 tokens in 2 ms or more
    engine.score("q", [f"{number:03}" for number in range(100)])
    gate.clear()
    pairs = [("q", f"{number:03}") for number in range(400)]
    stream = in_thread(engine.score_pairs, pairs, max_wait_s=0.01)
    wait_until(lambda: engine.stats().queued_pairs >= 200)
    refused = in_thread(engine.score, "q", ["other"] * 9 + ["new"], max_wait_s=0.001)
    assert isinstance(error_of(refused), OverloadedError)
    wait_until(lambda: engine.stats().queued_pairs == 400)
    gate.set()
    assert stream.result(PATIENCE_S) == expected("q", [document for _, document in pairs])


def test_a_stream_has_one_deadline_and_not_one_a_chunk(make_engine: MakeEngine) -> None:
    def slow(batch: Sequence[TokenSequence]) -> Logits:
        time.sleep(0.02)
        return digests(batch)

    engine = make_engine(FakeScorer(slow), max_batch_tokens=4, max_queued_pairs=4)
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        engine.score_pairs([("q", f"{number:03}") for number in range(200)], timeout_s=0.5)
    assert 0.5 <= time.monotonic() - started < 0.5 + GRACE_S
    assert_works(engine)


async def test_all_that_have_a_place_now_enter(make_engine: MakeEngine) -> None:
    """A call of many pairs leaves: several small ones take its place, not one."""
    permits = Semaphore(0)

    def stepwise(batch: Sequence[TokenSequence]) -> Logits:
        assert permits.acquire(timeout=20)
        return digests(batch)

    engine = make_engine(FakeScorer(stepwise), max_queued_pairs=4, queue_timeout_s=60)
    large = asyncio.create_task(engine.ascore("q", ["a", "b", "c", "d"]))
    await until(lambda: engine.stats().in_flight == 4)
    small = [asyncio.create_task(engine.ascore("q", [f"{number}"])) for number in range(3)]
    await asyncio.sleep(0)
    assert engine.stats().queued_pairs == 4
    permits.release()
    assert await large == expected("q", ["a", "b", "c", "d"])
    assert engine.stats().queued_pairs == 3
    permits.release(10)
    assert await asyncio.gather(*small) == [expected("q", [f"{number}"]) for number in range(3)]


async def test_refusals_are_logged_again_after_the_queue_was_half_empty(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(FakeScorer(gate=(gate := Event())), max_queued_pairs=5)

    async def refused() -> int:
        with pytest.raises(OverloadedError):
            await engine.ascore("q", ["a", "b", "c", "d"])
        return caplog.text.count("calls are refused")

    two = asyncio.create_task(engine.ascore("q", ["a", "b"]))
    three = asyncio.create_task(engine.ascore("q", ["c", "d", "e"]))
    await asyncio.sleep(0)
    assert await refused() == 1
    two.cancel()
    await until(lambda: engine.stats().queued_pairs == 3)
    assert await refused() == 1
    three.cancel()
    await until(lambda: engine.stats().queued_pairs == 0)
    three = asyncio.create_task(engine.ascore("q", ["c", "d", "e"]))
    await asyncio.sleep(0)
    assert await refused() == 2
    gate.set()
    await three


def test_a_flood_of_calls_makes_no_flood_of_log_lines(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Event()
    engine = full_engine(make_engine, gate)
    for spell in (1, 2):
        for _ in range(20):
            with pytest.raises(OverloadedError):
                engine.score("q", ["e"])
        assert caplog.text.count("the queue is full (4 pairs): calls are refused") == spell
        gate.set()
        wait_until(lambda: engine.stats().queued_pairs == 0)
        gate.clear()
        in_thread(engine.score, "q", ["a", "b", "c", "d"])
        wait_until(lambda: engine.stats().queued_pairs == 4)
    gate.set()


def test_a_call_with_very_long_documents_lets_others_be_tokenized(make_engine: MakeEngine) -> None:
    """A million characters at one time; then it is the next call's turn."""
    begun, answered = Event(), Event()
    sizes: list[int] = []

    def counting(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        sizes.append(sum(len(document) for _, document in pairs))
        begun.set()
        if len(sizes) == 1:
            wait_until(lambda: engine.stats().queued_pairs == 12)
        if len(sizes) == 4:
            assert answered.wait(20)
        return tokenize([(query, document[:9]) for query, document in pairs])

    engine = make_engine(tokenize=counting)
    long = in_thread(engine.score, "q", [f"{number:02}" * 200_000 for number in range(11)])
    assert begun.wait(PATIENCE_S)
    assert engine.score("q", ["short"], timeout_s=PATIENCE_S) == expected("q", ["short"])
    assert not long.done()
    answered.set()
    long.result(PATIENCE_S)
    assert sizes == [800_000, 800_000, 5, 800_000, 800_000, 800_000, 400_000]
