"""Callers that go away: at every stage of a call, from threads and from event loops."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from threading import Event
from types import FrameType
from typing import Any

import pytest
from callers import PATIENCE_S, assert_works, expected, in_thread, is_traced, until, wait_until
from fakes import CHUNK_PAIRS, FakeScorer, MakeEngine, TokenSequence, tokenize

from bge_rerank_integrations import RerankEngine

Task = asyncio.Task[list[float]]


class Stage:
    """An engine that stands still, with a call at a stage of its way."""

    def __init__(self, make_engine: MakeEngine, name: str) -> None:
        self.may_tokenize, self.may_score = Event(), Event()
        self.tokenizes, self.is_held = Event(), Event()
        self.scorer = FakeScorer(gate=self.may_score)
        self.engine = make_engine(
            self.scorer,
            tokenize=self._tokenize,
            max_queued_pairs=2,
            max_batch_tokens=8,
            queue_timeout_s=PATIENCE_S if name == "in_backlog" else 0,
        )
        self._name = name
        self.others: list[Task] = []

    async def reach(self) -> Task:
        """Bring a call to the stage; ``others`` are the calls that hold it up there."""
        call: Task = await getattr(self, f"_until_{self._name}")()
        return call

    async def submit(self, *documents: str) -> Task:
        """A call that waits for its answer."""
        task = asyncio.create_task(self.engine.ascore("q", documents))
        # a task runs until it waits for its answer
        await asyncio.sleep(0)
        return task

    def _tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        self.tokenizes.set()
        assert self.may_tokenize.wait(PATIENCE_S)
        return tokenize(pairs)

    async def _until_in_backlog(self) -> Task:
        self.others = [await self.submit("other")]
        call = await self.submit("a", "b")
        assert self.engine.stats().queued_pairs == 1
        return call

    async def _until_untokenized(self) -> Task:
        self.others = [await self.submit("other")]
        assert self.tokenizes.wait(PATIENCE_S)
        return await self.submit("a")

    async def _until_being_tokenized(self) -> Task:
        call = await self.submit("a", "b")
        assert self.tokenizes.wait(PATIENCE_S)
        return call

    async def _until_ready(self) -> Task:
        self.may_tokenize.set()
        self.others = [await self.submit("other")]
        assert self.scorer.entered.wait(PATIENCE_S)
        self.tokenizes.clear()
        call = await self.submit("a")
        assert self.tokenizes.wait(PATIENCE_S)
        # the tokenizer has it in hand; a moment later it is in line
        await asyncio.sleep(0.05)
        return call

    async def _until_in_flight(self) -> Task:
        self.may_tokenize.set()
        call = await self.submit("a", "b")
        assert self.scorer.entered.wait(PATIENCE_S)
        return call

    async def _until_answered(self) -> Task:
        self.may_tokenize.set()
        self.may_score.set()
        call = await self.submit("a", "b")
        await call
        return call


@pytest.mark.parametrize(
    "name", ["in_backlog", "untokenized", "being_tokenized", "ready", "in_flight", "answered"]
)
async def test_cancelled_at_any_stage(make_engine: MakeEngine, name: str) -> None:
    stage = Stage(make_engine, name)
    call = await stage.reach()
    assert call.cancel() == (name != "answered")
    await asyncio.wait([call])
    # its place is free at once
    assert stage.engine.stats().queued_pairs == len(stage.others)
    good = await stage.submit("good")
    assert stage.engine.stats().queued_pairs == len(stage.others) + 1
    stage.may_tokenize.set()
    stage.may_score.set()
    assert await good == expected("q", ["good"])
    for other in stage.others:
        assert await other == expected("q", ["other"])
    await until(lambda: stage.engine.stats().in_flight == 0)
    assert stage.engine.stats().queued_pairs == 0
    if name not in ("in_flight", "answered"):
        assert not any(2 in batch for batch in stage.scorer.batches), "scored for nobody"


async def test_a_task_cancelled_while_it_waits(make_engine: MakeEngine) -> None:
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate))
    task = asyncio.create_task(engine.arerank("q", ["a", "b"]))
    stream = asyncio.create_task(engine.ascore_pairs([("q", f"{n}") for n in range(5_000)]))
    await asyncio.sleep(0.01)
    for each in (task, stream):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each
    await asyncio.sleep(0)
    assert engine.stats().queued_pairs == 0
    gate.set()
    assert await engine.ascore("q", ["c"]) == expected("q", ["c"])
    assert engine.stats().in_flight == 0


async def test_batches_of_a_cancelled_call_are_not_computed(make_engine: MakeEngine) -> None:
    """Even if they were taken from the queue together with the one under way."""
    gate = Event()
    scorer = FakeScorer(padded=True, gate=gate)
    engine = make_engine(scorer, max_batch_tokens=8)
    task = asyncio.create_task(engine.ascore("q", [f"{number:03}" for number in range(40)]))
    await until(scorer.entered.is_set)
    task.cancel()
    await asyncio.wait([task])
    gate.set()
    assert await engine.ascore("q", ["good"]) == expected("q", ["good"])
    assert scorer.batches == [[4, 4], [5]]


async def test_a_task_that_timed_out_by_itself(make_engine: MakeEngine) -> None:
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(engine.ascore("q", ["a"]), 0.05)
    assert engine.stats().queued_pairs == 0
    gate.set()
    assert_works(engine)


def test_two_event_loops(make_engine: MakeEngine) -> None:
    """Each in a thread of its own, at one time; then one after the other."""
    engine = make_engine()

    async def many(name: str) -> list[list[float]]:
        return await asyncio.gather(*(engine.ascore(f"{name}{n}", ["a", "b"]) for n in range(50)))

    calls = [in_thread(asyncio.run, many(name)) for name in ("left", "right")]
    for name, call in zip(("left", "right"), calls, strict=True):
        assert call.result(PATIENCE_S) == [expected(f"{name}{n}", ["a", "b"]) for n in range(50)]
    assert asyncio.run(many("third"))[7] == expected("third7", ["a", "b"])
    assert_works(engine)


def test_an_event_loop_that_ends_while_its_call_waits(make_engine: MakeEngine) -> None:
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate))

    async def leave() -> None:
        asyncio.ensure_future(engine.ascore("q", ["a"]))  # noqa: RUF006  # nobody awaits it
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    gate.set()
    assert_works(engine)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has no pthread_kill")
def test_ctrl_c_in_a_waiting_thread(make_engine: MakeEngine) -> None:
    gate = Event()
    scorer = FakeScorer(gate=gate)
    engine = make_engine(scorer)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    def press() -> None:
        assert scorer.entered.wait(PATIENCE_S)
        signal.pthread_kill(main, signal.SIGINT)

    pressed = in_thread(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.score("q", ["a", "b"])
        pressed.result(PATIENCE_S)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert engine.stats().queued_pairs == 0
    gate.set()
    assert_works(engine)


@pytest.mark.skipif(is_traced(), reason="the test is a tracer itself")
def test_an_interrupt_anywhere_in_a_call_takes_no_place_for_ever(make_engine: MakeEngine) -> None:
    """As Ctrl-C may come: where any function of the package is entered."""
    engine = make_engine()
    interrupts = 0
    while _interrupted(engine, after_functions=interrupts):
        interrupts += 1
        wait_until(lambda: engine.stats().queued_pairs == 0)
    assert interrupts > 20
    assert_works(engine)


def _interrupted(engine: RerankEngine, after_functions: int) -> bool:
    """Make a call that is interrupted once so many functions were entered; or is not at all."""
    left = after_functions

    def trace(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if frame.f_globals.get("__name__", "").startswith("bge_rerank_integrations."):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt

    sys.settrace(trace)
    try:
        engine.score("q", ["a", "b"])
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_a_generator_that_fails_takes_its_calls_along(make_engine: MakeEngine) -> None:
    gate = Event()
    engine: RerankEngine = make_engine(FakeScorer(gate=gate), max_queued_pairs=8)

    def pairs() -> object:
        for number in range(5):
            yield "q", f"{number}"
        raise LookupError("the database went away")

    with pytest.raises(LookupError, match="the database went away"):
        engine.score_pairs(pairs())  # type: ignore[arg-type]
    assert engine.stats().queued_pairs == 0
    gate.set()
    assert_works(engine)


def test_garbage_collection_cancels_calls_in_any_thread(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are abandoned with their event loops, and collected in the engine's threads.

    The collector cancels them where the queue's lock is held: if that took the lock again, or
    changed what the thread is walking through, the engine would end.
    """
    monkeypatch.setattr(CHUNK_PAIRS, 4)
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate), max_batch_tokens=64)
    threshold = gc.get_threshold()
    for _ in range(12):
        gate.clear()
        gc.disable()
        # what was there before takes no time in the collections
        gc.freeze()
        for number in range(10):
            _abandon(engine, number)
        gc.set_threshold(1, 1, 1)
        gc.enable()
        try:
            gate.set()
            wait_until(lambda: engine.stats().queued_pairs == 0)
        finally:
            gc.set_threshold(*threshold)
    assert_works(engine)


@pytest.mark.parametrize("moment", range(16))
def test_calls_cancelled_while_their_lengths_are_read(make_engine: MakeEngine, moment: int) -> None:
    """As a collection might do it: in the scorer's thread, which holds the queue's lock."""
    futures: list[Future[Any]] = []
    reads = count()

    class Ids(list[int]):
        def __len__(self) -> int:
            is_scorer = threading.current_thread().name == "bge-rerank-scorer-0"
            if is_scorer and next(reads) == moment:
                for future in futures:
                    future.cancel()
            return super().__len__()

    def tokenize_watched(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        return [
            [replace(sequence, ids=Ids(sequence.ids)) for sequence in sequences]  # type: ignore[arg-type]
            for sequences in tokenize(pairs)
        ]

    gate = Event()
    scorer = FakeScorer(gate=gate)
    engine = make_engine(scorer, tokenize=tokenize_watched, max_batch_tokens=12)
    blocked = in_thread(engine.score, "q", ["blocked"])
    assert scorer.entered.wait(PATIENCE_S)
    for number in range(3):
        pairs = [(f"q{number}", f"{index}") for index in range(6)]
        futures.append(engine._submit(pairs, engine.options).future)
    wait_until(lambda: engine.stats().queued_pairs == 19)
    reads = count()
    gate.set()
    blocked.result(PATIENCE_S)
    assert_works(engine)


def _abandon(engine: RerankEngine, number: int) -> None:
    """Begin a call of many parts, and never resume it."""
    loop = asyncio.new_event_loop()
    pairs = ((f"q{number}", f"document {index}") for index in range(40))
    task = loop.create_task(engine.ascore_pairs(pairs))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
