"""Order, fairness and bounds of the queue; what happens when a batch fails is in tests/faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait

import numpy as np
import pytest
from fakes import Deferred, FakeScorer, digest, digests, scheduler, tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_rerank_integrations import (
    DeadlineError,
    EngineClosedError,
    OverloadedError,
    ScoringError,
)
from bge_rerank_integrations.engine.scheduling.jobs import Scored
from bge_rerank_integrations.engine.scheduling.scheduler import Scheduler
from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair


def submit(
    to: Scheduler,
    query: str,
    documents: list[str],
    timeout_s: float | None = None,
    queue_timeout_s: float | None = 0.0,
) -> Future[Scored]:
    pairs = [(query, document) for document in documents]
    return to.submit(pairs, range(len(pairs)), timeout_s=timeout_s, queue_timeout_s=queue_timeout_s)


def logits(future: Future[Scored]) -> list[float]:
    scored: list[float] = future.result(10).logits[:, 0].tolist()
    return scored


@given(st.lists(st.lists(st.text("abc", max_size=30), min_size=1, max_size=12), max_size=6))
@settings(max_examples=30, deadline=None)
def test_every_call_gets_its_own_scores(calls: list[list[str]]) -> None:
    running = scheduler(FakeScorer(), max_batch_tokens=40)
    futures = [submit(running, f"q{number}", call) for number, call in enumerate(calls)]
    for number, (call, future) in enumerate(zip(calls, futures, strict=True)):
        assert logits(future) == [digest(f"q{number}", document) for document in call]
        assert future.result().tokens == sum(len(document) + 1 for document in call)
    running.close()


def test_calls_that_wait_share_a_batch() -> None:
    gate = threading.Event()
    scorer = FakeScorer(gate=gate)
    running = scheduler(scorer, max_batch_tokens=1_000)
    first = submit(running, "q", ["one"])
    assert scorer.entered.wait(10)
    later = [submit(running, f"q{number}", ["abcd"] * 1) for number in range(5)]
    while running.queued_pairs < 6 or not all_tokenized(running):
        time.sleep(0.001)
    gate.set()
    wait([first, *later], 10)
    assert scorer.batches == [[4], [5, 5, 5, 5, 5]]
    running.close()


def test_a_device_faster_than_the_tokenizer_does_not_answer_too_early() -> None:
    """All that is tokenized may be scored while the tokenizer has the rest in hand."""
    documents = [f"{number:04}" for number in range(600)]
    scored = threading.Semaphore(0)

    def slow(pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
        sequences = tokenize(pairs)
        if pairs[0][1] != documents[0]:
            for _ in range(256):
                assert scored.acquire(timeout=10)
            # what was scored last is handed to its call now
            time.sleep(0.05)
        return sequences

    def counting(batch: Sequence[TokenizedPair]) -> Logits:
        scored.release(len(batch))
        return digests(batch)

    running = Scheduler(slow, [FakeScorer(counting)], max_batch_tokens=64, max_queued_pairs=1_000)
    assert logits(submit(running, "q", documents)) == [digest("q", text) for text in documents]
    running.close()


def all_tokenized(running: Scheduler) -> bool:
    return not running._queue._untokenized and len(running._queue._ready) == 5


def test_a_long_call_lets_short_ones_pass() -> None:
    gate = threading.Event()
    scorer = FakeScorer(gate=gate)
    running = scheduler(scorer, max_batch_tokens=20)
    long = submit(running, "long", [f"{number:04}" for number in range(200)])
    assert scorer.entered.wait(10)
    short = submit(running, "short", ["abcd"])
    gate.set()
    short.result(10)
    # one batch held the long call's start, the next ones took from both in turn
    assert not long.done() or len(scorer.batches) <= 52
    assert len(logits(long)) == 200
    running.close()


def test_replicas_share_one_queue() -> None:
    gates = [threading.Event(), threading.Event()]
    scorers = [FakeScorer(gate=gate) for gate in gates]
    running = scheduler(*scorers, max_batch_tokens=8)
    future = submit(running, "q", [f"doc{number}" for number in range(20)])
    assert all(scorer.entered.wait(10) for scorer in scorers)
    for gate in gates:
        gate.set()
    assert logits(future) == [digest("q", f"doc{number}") for number in range(20)]
    assert sum(len(batch) for scorer in scorers for batch in scorer.batches) == 20
    running.close()


def test_the_queue_is_bounded() -> None:
    gate = threading.Event()
    running = scheduler(FakeScorer(gate=gate), max_queued_pairs=10)
    held = submit(running, "q", [f"{number}" for number in range(8)])
    with pytest.raises(OverloadedError, match=r"8 pairs are waiting and max_queued_pairs is 10"):
        submit(running, "q", ["a", "b", "c"])
    assert submit(running, "q", ["a", "b"]) is not None
    gate.set()
    held.result(10)
    running.close()


def test_a_call_waits_for_a_place_if_it_may() -> None:
    gate = threading.Event()
    running = scheduler(FakeScorer(gate=gate), max_queued_pairs=2)
    held = submit(running, "q", ["a", "b"])
    patient = submit(running, "q", ["c", "d"], queue_timeout_s=10)
    hasty = submit(running, "q", ["e"], queue_timeout_s=0.05)
    with pytest.raises(OverloadedError):
        hasty.result(5)
    gate.set()
    assert logits(patient) == [digest("q", "c"), digest("q", "d")]
    assert held.done()
    running.close()


def test_a_large_call_is_not_passed_by_small_ones_for_ever() -> None:
    gate = threading.Event()
    running = scheduler(FakeScorer(gate=gate), max_queued_pairs=4)
    submit(running, "q", ["a", "b"])
    large = submit(running, "q", ["c", "d", "e", "f"], queue_timeout_s=10)
    with pytest.raises(OverloadedError):
        submit(running, "q", ["small"])
    gate.set()
    assert len(logits(large)) == 4
    running.close()


def test_a_call_larger_than_the_queue_is_taken_alone() -> None:
    running = scheduler(FakeScorer(), max_queued_pairs=2)
    assert len(logits(submit(running, "q", ["a", "b", "c"]))) == 3
    running.close()


def test_a_cancelled_call_leaves_the_queue() -> None:
    gate = threading.Event()
    scorer = FakeScorer(gate=gate)
    running = scheduler(scorer, max_batch_tokens=8)
    in_flight = submit(running, "q", ["first", "second"])
    assert scorer.entered.wait(10)
    waiting = submit(running, "q", ["third"])
    assert in_flight.cancel()
    assert waiting.cancel()
    assert running.queued_pairs == 0
    gate.set()
    assert logits(submit(running, "q", ["fourth"])) == [digest("q", "fourth")]
    assert [6] not in scorer.batches[1:-1]
    assert running.in_flight == 0
    running.close()


def test_a_deadline_is_kept_while_the_model_is_busy() -> None:
    gate = threading.Event()
    running = scheduler(FakeScorer(gate=gate))
    started = time.monotonic()
    late = [submit(running, "q", ["a"], timeout_s=0.1), submit(running, "q", ["b"], timeout_s=0.2)]
    for future in late:
        with pytest.raises(DeadlineError, match="timeout_s passed"):
            future.result(5)
    assert time.monotonic() - started < 1.2
    gate.set()
    assert logits(submit(running, "q", ["c"], timeout_s=5)) == [digest("q", "c")]
    running.close()


def test_closing_answers_everyone() -> None:
    gate = threading.Event()
    scorer = FakeScorer(gate=gate)
    running = scheduler(scorer, max_batch_tokens=8, max_queued_pairs=3)
    futures = [submit(running, "q", ["first"]), submit(running, "q", ["second"])]
    futures.append(submit(running, "q", ["a", "b"], queue_timeout_s=None))
    assert scorer.entered.wait(10)
    threading.Timer(0.1, gate.set).start()
    running.close()
    for future in futures:
        with pytest.raises(EngineClosedError):
            future.result(0)
    with pytest.raises(EngineClosedError):
        submit(running, "q", ["late"])
    assert not any(thread.is_alive() for thread in running._threads)


def test_windows_of_a_document_count_as_their_best() -> None:
    from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair

    def windows(pairs: object) -> list[list[TokenizedPair]]:
        ids = [np.array([score], dtype=np.int32) for score in (3, 9, 5)]
        return [[TokenizedPair(each, 0, 1) for each in ids]]

    running = Scheduler(
        windows,
        [FakeScorer(lambda batch: np.array([[pair.ids[0]] for pair in batch], np.float32))],
        max_batch_tokens=1,
        max_queued_pairs=10,
    )
    assert logits(submit(running, "q", ["long"])) == [9.0]
    running.close()


def test_a_device_gets_the_next_batch_before_the_last_is_waited_for() -> None:
    events: list[str] = []
    running = scheduler(FakeScorer(lambda batch: Deferred(events, batch)), max_batch_tokens=5)
    future = submit(running, "q", ["doc0", "doc1", "doc2"])
    assert logits(future) == [digest("q", f"doc{number}") for number in range(3)]
    running.close()
    first, second, third = (event.split()[1] for event in events if event.startswith("start"))
    assert events == [
        f"start {first}",
        f"start {second}",
        f"wait {first}",
        f"start {third}",
        f"wait {second}",
        f"wait {third}",
    ]


def test_a_batch_that_fails_while_it_is_waited_for_is_halved() -> None:
    gate, events = threading.Event(), list[str]()
    scorer = FakeScorer(lambda batch: Deferred(events, batch), gate=gate)
    running = scheduler(scorer)
    blocked = submit(running, "q", ["first"])
    assert scorer.entered.wait(10)
    good = submit(running, "q", ["doc0", "doc1", "doc2"])
    bad = submit(running, "q", ["bad"])
    gate.set()
    assert logits(blocked) == [digest("q", "first")]
    assert logits(good) == [digest("q", f"doc{number}") for number in range(3)]
    with pytest.raises(ScoringError, match="document 0 failed: lost on the way"):
        bad.result(10)
    running.close()


def test_a_device_is_not_left_waiting_for_a_call_to_come() -> None:
    """A batch under way is waited for as soon as there is nothing else to start."""
    running = scheduler(FakeScorer(lambda batch: Deferred([], batch)))
    for number in range(20):
        assert logits(submit(running, "q", [f"{number}"])) == [digest("q", f"{number}")]
    running.close()
