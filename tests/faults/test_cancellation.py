"""Callers that go away: at every stage of a call, from threads and from event loops."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Event

import pytest
from callers import PATIENCE_S, assert_works, expected, in_thread, wait_until
from conftest import MakeEngine
from fakes import FakeScorer, digest, scheduler, tokenize

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.engine.scheduling.jobs import Scored
from bge_rerank_integrations.engine.scheduling.scheduler import Scheduler
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair


def submit(to: Scheduler, *documents: str, queue_timeout_s: float | None = 0) -> Future[Scored]:
    pairs = [("q", document) for document in documents]
    return to.submit(pairs, range(len(pairs)), timeout_s=None, queue_timeout_s=queue_timeout_s)


class Stage:
    """A scheduler that stands still, with a call of two pairs at a stage of its way."""

    def __init__(self, name: str) -> None:
        self.may_tokenize, self.may_score = Event(), Event()
        self.tokenizes = Event()
        self.scorer = FakeScorer(gate=self.may_score)
        self.running = scheduler(self.scorer, max_queued_pairs=2, max_batch_tokens=8)
        self.running._tokenize = self._tokenize
        getattr(self, f"_until_{name}")()

    def _tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
        self.tokenizes.set()
        assert self.may_tokenize.wait(PATIENCE_S)
        return tokenize(pairs)

    def _until_in_backlog(self) -> None:
        self.other = submit(self.running, "other")
        self.call = submit(self.running, "a", "b", queue_timeout_s=None)
        assert self.running.queued_pairs == 1

    def _until_untokenized(self) -> None:
        self.other = submit(self.running, "other")
        assert self.tokenizes.wait(PATIENCE_S)
        self.call = submit(self.running, "a")

    def _until_being_tokenized(self) -> None:
        self.call = submit(self.running, "a", "b")
        assert self.tokenizes.wait(PATIENCE_S)

    def _until_ready(self) -> None:
        self.may_tokenize.set()
        self.other = submit(self.running, "other")
        assert self.scorer.entered.wait(PATIENCE_S)
        self.call = submit(self.running, "a")
        wait_until(lambda: len(self.running._queue._ready) == 1)

    def _until_in_flight(self) -> None:
        self.may_tokenize.set()
        self.call = submit(self.running, "a", "b")
        assert self.scorer.entered.wait(PATIENCE_S)

    def _until_answered(self) -> None:
        self.may_tokenize.set()
        self.may_score.set()
        self.call = submit(self.running, "a", "b")
        self.call.result(PATIENCE_S)


@pytest.mark.parametrize(
    "name", ["in_backlog", "untokenized", "being_tokenized", "ready", "in_flight", "answered"]
)
def test_cancelled_at_any_stage(name: str) -> None:
    stage = Stage(name)
    assert stage.call.cancel() == (name != "answered")
    other = getattr(stage, "other", None)
    # its place is free at once
    assert stage.running.queued_pairs == (1 if other else 0)
    next_good = submit(stage.running, "good")
    stage.may_tokenize.set()
    stage.may_score.set()
    assert next_good.result(PATIENCE_S).logits.tolist() == [[digest("q", "good")]]
    if other:
        assert other.result(PATIENCE_S).logits.tolist() == [[digest("q", "other")]]
    assert (stage.running.queued_pairs, stage.running.in_flight) == (0, 0)
    if name not in ("in_flight", "answered"):
        assert not any(2 in batch for batch in stage.scorer.batches), "scored for nobody"
    stage.running.close()


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


def test_an_interrupt_while_a_call_enters_takes_no_place_for_ever(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    queue = engine._running.scheduler._queue
    watch = queue._watch

    def interrupted(moment: float, job: object) -> None:
        monkeypatch.setattr(queue, "_watch", watch)
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.score("q", ["a", "b"])
    wait_until(lambda: engine.stats().queued_pairs == 0)
    assert_works(engine)


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
