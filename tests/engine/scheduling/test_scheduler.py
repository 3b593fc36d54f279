"""How calls share an engine: whose turn it is, what makes a batch, and the bound of the queue.

What happens when something fails is in tests/faults.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from callers import PATIENCE_S, expected, in_thread, until, wait_until
from fakes import (
    Deferred,
    FakeScorer,
    HeldTokenizer,
    Logits,
    MakeEngine,
    TokenSequence,
    digests,
    fake_engine,
    text_of,
    tokenize,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_rerank_integrations import ConfigurationError, OverloadedError, ScoringError

CALLS = st.lists(st.lists(st.text("abc", max_size=30), min_size=1, max_size=12), max_size=6)


@given(CALLS)
@settings(max_examples=30, deadline=None)
def test_every_call_gets_its_own_scores(calls: list[list[str]]) -> None:
    with fake_engine(max_batch_tokens=40) as engine:
        answers = [
            in_thread(engine.rerank, f"q{number}", call) for number, call in enumerate(calls)
        ]
        for number, (call, answer) in enumerate(zip(calls, answers, strict=True)):
            ranking = answer.result(PATIENCE_S)
            scores = expected(f"q{number}", call)
            assert {ranked.index: ranked.score for ranked in ranking} == dict(enumerate(scores))
            assert ranking.total_tokens == sum(len(document) + 1 for document in set(call))


def test_calls_that_wait_share_a_batch(make_engine: MakeEngine) -> None:
    scorer, tokenizer = FakeScorer(gate=threading.Event()), HeldTokenizer()
    engine = make_engine(scorer, tokenize=tokenizer, max_batch_tokens=1_000)
    calls = [in_thread(engine.score, "q", ["one"])]
    assert scorer.entered.wait(PATIENCE_S)
    calls += [in_thread(engine.score, f"q{number}", ["abcd"]) for number in range(5)]
    wait_until(lambda: engine.stats().queued_pairs == 6)
    held = in_thread(engine.score, "q", ["hold"])
    assert tokenizer.is_held.wait(PATIENCE_S)
    scorer.gate.set()
    for call in calls:
        call.result(PATIENCE_S)
    assert scorer.batches == [[4], [5, 5, 5, 5, 5]]
    tokenizer.release.set()
    held.result(PATIENCE_S)


def test_calls_with_different_options_share_a_batch(make_engine: MakeEngine) -> None:
    scorer, tokenizer = FakeScorer(gate=threading.Event()), HeldTokenizer()
    engine = make_engine(scorer, tokenize=tokenizer, max_batch_tokens=1_000)
    calls = [in_thread(engine.score, "q", ["one"])]
    assert scorer.entered.wait(PATIENCE_S)
    options = [{"instruction": "Judge it."}, {"max_length": 16}, {"normalize": True}]
    calls += [in_thread(engine.score, "q", ["abcd"], **option) for option in options]
    calls.append(in_thread(engine.with_options(timeout_s=PATIENCE_S).score, "q", ["abcd"]))
    wait_until(lambda: engine.stats().queued_pairs == 5)
    held = in_thread(engine.score, "q", ["hold"])
    assert tokenizer.is_held.wait(PATIENCE_S)
    scorer.gate.set()
    for call in calls:
        call.result(PATIENCE_S)
    assert scorer.batches == [[4], [5, 5, 5, 5]]
    tokenizer.release.set()
    held.result(PATIENCE_S)


def test_a_device_faster_than_the_tokenizer_does_not_answer_too_early(
    make_engine: MakeEngine,
) -> None:
    """All that is tokenized may be scored while the tokenizer has the rest in hand."""
    documents = [f"{number:04}" for number in range(600)]
    scored = threading.Semaphore(0)

    def slow(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        sequences = tokenize(pairs)
        if pairs[0][1] != documents[0]:
            for _ in range(256):
                assert scored.acquire(timeout=10)
            # what was scored last is handed to its call now
            time.sleep(0.05)
        return sequences

    def counting(batch: Sequence[TokenSequence]) -> Logits:
        scored.release(len(batch))
        return digests(batch)

    engine = make_engine(FakeScorer(counting), tokenize=slow)
    assert engine.score("q", documents) == expected("q", documents)


def test_a_long_call_lets_short_ones_be_scored(make_engine: MakeEngine) -> None:
    """A short call is answered while most of a long one's batches are still to come."""
    batches: list[list[str]] = []
    permits, tokenizer = threading.Semaphore(0), HeldTokenizer()

    def stepwise(batch: Sequence[TokenSequence]) -> Logits:
        batches.append([text_of(pair) for pair in batch])
        assert permits.acquire(timeout=20)
        return digests(batch)

    engine = make_engine(FakeScorer(stepwise), tokenize=tokenizer, max_batch_tokens=20)
    # 50 batches of 4 documents
    long = in_thread(engine.score, "long", [f"{number:04}" for number in range(200)])
    wait_until(lambda: len(batches) == 1)
    short = in_thread(engine.score, "short", ["abcd"])
    wait_until(lambda: engine.stats().queued_pairs == 201)
    held = in_thread(engine.score, "q", ["hold"])
    assert tokenizer.is_held.wait(PATIENCE_S)
    permits.release(4)
    assert short.result(PATIENCE_S) == expected("short", ["abcd"])
    assert not long.done()
    (turn,) = [number for number, batch in enumerate(batches) if "abcd" in batch]
    assert 1 <= turn <= 2
    assert len(batches[turn]) == 4, "the long call takes its turn in the same batch"
    tokenizer.release.set()
    permits.release(200)
    assert len(long.result(PATIENCE_S)) == 200
    held.result(PATIENCE_S)


def test_a_long_call_lets_short_ones_be_tokenized(make_engine: MakeEngine) -> None:
    """A short call is answered while most of a long one's texts are still to be tokenized."""
    begun, answered = threading.Event(), threading.Event()
    turns: list[int] = []

    def in_turns(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        turns.append(len(pairs))
        begun.set()
        if len(turns) == 1:
            wait_until(lambda: engine.stats().queued_pairs == 5_001)
        if len(turns) == 4:
            assert answered.wait(20)
        return tokenize(pairs)

    engine = make_engine(tokenize=in_turns, max_batch_tokens=10_000)
    long = in_thread(engine.score, "long", [f"{number:04}" for number in range(5_000)])
    assert begun.wait(PATIENCE_S)
    short = in_thread(engine.score, "short", ["abcd"])
    assert short.result(PATIENCE_S) == expected("short", ["abcd"])
    assert not long.done()
    assert turns.index(1) in (1, 2)
    answered.set()
    assert len(long.result(PATIENCE_S)) == 5_000


async def test_a_wrong_selection_is_told_before_anything_is_scored(make_engine: MakeEngine) -> None:
    engine = make_engine(scorer := FakeScorer())
    with pytest.raises(ConfigurationError, match="top_n must be"):
        engine.rerank("q", ["a"], top_n=0)
    with pytest.raises(ConfigurationError, match="top_n must be"):
        await engine.arerank("q", ["a"], top_n=0)
    assert scorer.batches == []


def test_padding_counts_against_a_batch(make_engine: MakeEngine) -> None:
    scorer = FakeScorer(padded=True)
    engine = make_engine(scorer, max_batch_tokens=60)
    engine.score("q", ["x" * 29, *(f"{number:04}" for number in range(50))])
    assert scorer.batches[0] == [30, 5]
    assert all(max(batch) * len(batch) <= 60 for batch in scorer.batches)


def test_padded_documents_of_several_calls_are_sorted_over_several_batches(
    make_engine: MakeEngine,
) -> None:
    """Calls take turns, one long and one short document: beside each other they would be padded."""
    tokenizer = HeldTokenizer()
    scorer = FakeScorer(padded=True, gate=threading.Event())
    engine = make_engine(scorer, tokenize=tokenizer, max_batch_tokens=60)
    calls = [in_thread(engine.score, "q", ["first"])]
    assert scorer.entered.wait(PATIENCE_S)
    for size in (29, 4):
        documents = [f"{number:0{size}}" for number in range(4)]
        calls.append(in_thread(engine.score, "q", documents))
        wait_until(lambda: engine.stats().queued_pairs == 1 + 4 * (len(calls) - 1))
    calls.append(in_thread(engine.score, "q", ["hold"]))
    assert tokenizer.is_held.wait(PATIENCE_S)
    scorer.gate.set()
    wait_until(lambda: engine.stats().queued_pairs == 1)
    tokenizer.release.set()
    for call in calls:
        call.result(PATIENCE_S)
    assert scorer.batches == [[6], [30, 30], [30, 30], [5, 5, 5, 5], [5]]


def test_documents_of_like_lengths_share_a_batch(make_engine: MakeEngine) -> None:
    """Whatever their order in the call: longest first."""
    engine = make_engine(scorer := FakeScorer(), max_batch_tokens=64)
    engine.score("q", [f"{number:0{1 + number * 7 % 20}}" for number in range(100)])
    lengths = [length for batch in scorer.batches for length in batch]
    assert len(scorer.batches) > 10
    assert lengths == sorted(lengths, reverse=True)


def test_replicas_share_one_queue(make_engine: MakeEngine) -> None:
    gate = threading.Event()
    scorers = [FakeScorer(gate=gate), FakeScorer(gate=gate)]
    engine = make_engine(*scorers, max_batch_tokens=8)
    documents = [f"doc{number}" for number in range(20)]
    call = in_thread(engine.score, "q", documents)
    assert all(scorer.entered.wait(PATIENCE_S) for scorer in scorers)
    gate.set()
    assert call.result(PATIENCE_S) == expected("q", documents)
    assert sum(len(batch) for scorer in scorers for batch in scorer.batches) == 20


def test_the_queue_is_bounded(make_engine: MakeEngine) -> None:
    engine = make_engine(FakeScorer(gate=(gate := threading.Event())), max_queued_pairs=10)
    calls = [in_thread(engine.score, "q", [f"{number}" for number in range(8)])]
    wait_until(lambda: engine.stats().queued_pairs == 8)
    with pytest.raises(OverloadedError, match=r"8 pairs are waiting and max_queued_pairs is 10"):
        engine.score("q", ["a", "b", "c"])
    calls.append(in_thread(engine.score, "q", ["a", "b"]))
    wait_until(lambda: engine.stats().queued_pairs == 10)
    with pytest.raises(OverloadedError, match=r"10 pairs are waiting"):
        engine.score("q", ["a"])
    gate.set()
    assert [len(call.result(PATIENCE_S)) for call in calls] == [8, 2]


async def test_a_large_call_is_not_passed_by_small_ones_for_ever(make_engine: MakeEngine) -> None:
    scorer = FakeScorer(gate=threading.Event())
    engine = make_engine(scorer, max_queued_pairs=4, queue_timeout_s=10)
    calls = []
    for documents in (["a", "b"], ["c", "d", "e", "f"], ["small"]):
        calls.append(asyncio.create_task(engine.ascore("q", documents)))
        # a task runs until it waits for its answer
        await asyncio.sleep(0)
    # there is room for the small call, but it stands behind the large one
    assert engine.stats().queued_pairs == 2
    scorer.gate.set()
    await until(lambda: calls[-1].done())
    assert [len(await call) for call in calls] == [2, 4, 1]


def test_a_call_larger_than_the_queue_is_taken_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(max_queued_pairs=2)
    assert engine.score("q", ["a", "b", "c"]) == expected("q", ["a", "b", "c"])


@pytest.mark.parametrize("max_queued_pairs", [1, 2, 3])
def test_a_stream_goes_through_the_smallest_queue(
    make_engine: MakeEngine, max_queued_pairs: int
) -> None:
    engine = make_engine(max_queued_pairs=max_queued_pairs)
    pairs = [("q", document) for document in "abcde"]
    assert engine.score_pairs(iter(pairs)) == expected("q", list("abcde"))


def test_windows_of_a_document_count_as_their_best(make_engine: MakeEngine) -> None:
    def windows(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        ids = [np.array([score], dtype=np.int32) for score in (3, 9, 5)]
        return [[TokenSequence(each, 0, 1) for each in ids]] * len(pairs)

    engine = make_engine(tokenize=windows, max_batch_tokens=1)
    assert engine.score("q", ["long", "longer"]) == [9.0, 9.0]


def test_a_device_gets_the_next_batch_before_the_last_is_waited_for(
    make_engine: MakeEngine,
) -> None:
    events: list[str] = []
    engine = make_engine(FakeScorer(lambda batch: Deferred(events, batch)), max_batch_tokens=5)
    documents = ["doc0", "doc1", "doc2"]
    assert engine.score("q", documents) == expected("q", documents)
    first, second, third = (event.split()[1] for event in events if event.startswith("start"))
    assert events == [
        f"start {first}",
        f"start {second}",
        f"wait {first}",
        f"start {third}",
        f"wait {second}",
        f"wait {third}",
    ]


def test_a_batch_that_fails_while_it_is_waited_for_is_halved(make_engine: MakeEngine) -> None:
    scorer, tokenizer = FakeScorer(lambda batch: Deferred([], batch)), HeldTokenizer()
    scorer.gate = threading.Event()
    engine = make_engine(scorer, tokenize=tokenizer)
    blocked = in_thread(engine.score, "q", ["first"])
    assert scorer.entered.wait(PATIENCE_S)
    good = in_thread(engine.score, "q", ["doc0", "doc1", "doc2"])
    bad = in_thread(engine.score, "q", ["bad"])
    wait_until(lambda: engine.stats().queued_pairs == 5)
    held = in_thread(engine.score, "q", ["hold"])
    assert tokenizer.is_held.wait(PATIENCE_S)
    scorer.gate.set()
    assert blocked.result(PATIENCE_S) == expected("q", ["first"])
    assert good.result(PATIENCE_S) == expected("q", ["doc0", "doc1", "doc2"])
    with pytest.raises(ScoringError, match="document 0 failed: lost on the way"):
        bad.result(PATIENCE_S)
    assert scorer.batches[1] == [5, 5, 5, 4]
    tokenizer.release.set()
    held.result(PATIENCE_S)


def test_a_device_is_not_left_waiting_for_a_call_to_come(make_engine: MakeEngine) -> None:
    """A batch under way is waited for as soon as there is nothing else to start."""
    engine = make_engine(FakeScorer(lambda batch: Deferred([], batch)))
    for number in range(20):
        assert engine.score("q", [f"{number}"], timeout_s=5) == expected("q", [f"{number}"])


def test_batches_are_counted_by_their_sizes(make_engine: MakeEngine) -> None:
    engine = make_engine(scorer := FakeScorer(), max_batch_tokens=100)
    engine.score("q", [f"{number:09}" for number in range(25)])
    engine.score("q", ["more"])
    stats = engine.stats()
    assert sum(stats.queue_wait_s.counts) == 2
    assert (stats.batch_sequences.total, stats.batch_tokens.total) == (26, 255)
    sizes = [len(batch) for batch in scorer.batches]
    assert sum(stats.batch_sequences.counts) == len(sizes) == stats.batches
    upper = stats.batch_sequences.bounds.index(8)
    assert stats.batch_sequences.counts[: upper + 1] == (
        sum(size <= 1 for size in sizes),
        sum(size == 2 for size in sizes),
        sum(2 < size <= 4 for size in sizes),
        sum(4 < size <= 8 for size in sizes),
    )
