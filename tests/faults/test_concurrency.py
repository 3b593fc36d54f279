"""Many callers at one time: each gets its own answer, and no event loop is held up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from threading import Event

import pytest
from callers import assert_works, expected, in_thread
from fakes import TOKENIZE_PAIRS, Deferred, FakeScorer, MakeEngine

from bge_rerank_integrations import RerankEngine

THREADS, CALLERS, CALLS = 8, 32, 6
CANCELLED = 0.3
MAX_LAG_S = 0.05
# of the event loop's own thread in one turn: several times what was measured
MAX_COMPUTED_S = 0.02


class Caller:
    """Makes calls of all kinds to several engines, and checks each answer."""

    def __init__(self, name: str, engines: Sequence[RerankEngine]) -> None:
        self._name = name
        self._random = random.Random(name)
        self._engines = engines
        self.cancelled = 0

    async def call_often(self) -> None:
        for number in range(CALLS):
            call = asyncio.create_task(self._call(f"{self._name}-{number}"))
            if self._random.random() < CANCELLED:
                for _ in range(self._random.randrange(6)):
                    await asyncio.sleep(0)
                self.cancelled += call.cancel()
                # answered just before, or cancelled; anything else is a failure
                await asyncio.gather(call, return_exceptions=True)
                assert call.cancelled() or call.exception() is None
            else:
                await call

    async def _call(self, query: str) -> None:
        engine = self._random.choice(self._engines)
        documents = [
            "x" * self._random.randrange(60) + str(number)
            for number in range(self._random.randrange(1, 12))
        ]
        scores = expected(query, documents)
        kind = self._random.randrange(3)
        if kind == 0:
            assert await engine.ascore(query, documents, timeout_s=60) == scores
        elif kind == 1:
            pairs = [(query, document) for document in documents]
            assert await engine.ascore_pairs(pairs) == scores
        else:
            top_n = self._random.randrange(1, 6)
            ranking = await engine.arerank(query, documents, top_n)
            best = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_n]
            assert [(d.index, d.score) for d in ranking] == [(i, scores[i]) for i in best]


async def longest_lag(work: asyncio.Future[object]) -> tuple[float, float]:
    """The longest that the event loop was held up until ``work`` was done, and computed, at once.

    :returns: seconds, and seconds of its thread's processor time: these are its own, however busy
        the machine is.
    """
    lag = computed = 0.0
    while not work.done():
        due, began = time.perf_counter() + 0.001, time.thread_time()
        await asyncio.sleep(0.001)
        lag = max(lag, time.perf_counter() - due)
        computed = max(computed, time.thread_time() - began)
    work.result()
    return lag, computed


async def allowed_lag() -> float:
    """50 ms, and on a busy machine what an idle event loop is held up there."""
    idle, _ = await longest_lag(asyncio.ensure_future(asyncio.sleep(0.3)))
    return MAX_LAG_S + 10 * idle


@pytest.mark.parametrize("pairs_in_hand", [None, 3])
def test_every_caller_gets_its_own_answer(
    make_engine: MakeEngine, pairs_in_hand: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,536 calls of 8 threads with 32 callers each, to four engines, 3 in 10 cancelled.

    Also where the tokenizer takes a call's pairs in several turns.
    """
    if pairs_in_hand is not None:
        monkeypatch.setattr(TOKENIZE_PAIRS, pairs_in_hand)
    engines = [
        make_engine(FakeScorer(), max_batch_tokens=256),
        make_engine(FakeScorer(), FakeScorer(), max_batch_tokens=1_000),
        make_engine(FakeScorer(lambda batch: Deferred([], batch)), max_batch_tokens=200),
        make_engine(FakeScorer(padded=True), max_batch_tokens=64, max_queued_pairs=500,
                    queue_timeout_s=60),
    ]  # fmt: skip

    async def run(thread: int) -> int:
        callers = [Caller(f"{thread}-{number}", engines) for number in range(CALLERS)]
        await asyncio.gather(*(caller.call_often() for caller in callers))
        return sum(caller.cancelled for caller in callers)

    threads = [in_thread(asyncio.run, run(number)) for number in range(THREADS)]
    cancelled = sum(thread.result(120) for thread in threads)
    assert 0.2 < cancelled / (THREADS * CALLERS * CALLS) < 0.4
    for engine in engines:
        assert engine.stats().failures == 0
        assert_works(engine)


@pytest.mark.parametrize("settings", [{}, {"long_documents": "window", "max_length": 64}])
async def test_the_event_loop_runs_on_while_the_engine_works(
    xlmr: str, settings: dict[str, object]
) -> None:
    """Tokenization and forward passes of a real model, and calls as large as they come."""
    engine = RerankEngine(xlmr, device="cpu", dtype="float32", **settings)  # type: ignore[arg-type]
    words = [f"word{number}" for number in range(1_000)]
    lags, allowed = [], await allowed_lag()
    # up to three times: the rest of the machine may be busy, a loop that is blocked always is
    for attempt in range(3):
        shuffle = random.Random(attempt).choices
        calls = [
            engine.ascore(f"q {call}", [" ".join(shuffle(words, k=60)) for _ in range(60)])
            for call in range(6)
        ]
        giant = f"{attempt} " + "giant " * (2_000 if settings else 166_000)
        work = asyncio.gather(engine.ascore("q", [giant, "small"]), *calls)
        lag, computed = await longest_lag(work)
        assert computed < MAX_COMPUTED_S
        lags.append(lag)
        if lag < allowed:
            break
    engine.close()
    assert min(lags) < allowed, lags


async def test_the_event_loop_runs_on_while_calls_pile_up(make_engine: MakeEngine) -> None:
    """Thousands of calls that wait, end and leave cost no single one much."""
    # the loop resumes some thousand callers of one batch in one turn, tens of microseconds each,
    # and shares the interpreter with the thread that answers them
    lags, allowed = [], 2 * await allowed_lag()
    for _ in range(3):
        engine = make_engine(FakeScorer(gate=(gate := Event())), max_batch_tokens=4_096)
        tasks = [asyncio.create_task(engine.ascore(f"q{n}", ["a"])) for n in range(3_000)]
        await asyncio.sleep(0)

        async def end(tasks: list[asyncio.Task[list[float]]], gate: Event) -> None:
            for task in tasks[::2]:
                task.cancel()
                await asyncio.sleep(0)
            gate.set()
            for number, task in enumerate(tasks[1::2]):
                assert await task == expected(f"q{2 * number + 1}", ["a"])

        lag, computed = await longest_lag(asyncio.ensure_future(end(tasks, gate)))
        assert computed < MAX_COMPUTED_S
        lags.append(lag)
        if lag < allowed:
            break
    assert min(lags) < allowed, lags
