"""close(), the end of the interpreter, and processes that fork."""

from __future__ import annotations

import asyncio
import gc
import os
import textwrap
import time
import warnings
import weakref
from threading import Event, Timer

import processes
import pytest
from callers import (
    GRACE_S,
    PATIENCE_S,
    assert_works,
    engine_threads,
    error_of,
    in_thread,
    until,
    wait_until,
)
from fakes import CLOSE_TIMEOUT_S, FORK_TIMEOUT_S, LOAD, FakeScorer, MakeEngine, digest, fake_model
from paths import TESTS

from bge_rerank_integrations import EngineClosedError, ForkedProcessError, RerankEngine

ANSWER = f"[{digest('q', 'a')}]"


async def test_closing_with_calls_waiting_at_every_stage(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Event()
    scorer = FakeScorer(gate=gate)
    engine = make_engine(scorer, max_queued_pairs=4, queue_timeout_s=60)
    blocked = in_thread(engine.score, "q", ["a", "b"])
    assert scorer.entered.wait(PATIENCE_S)
    # one in the queue, two that wait for a place in it
    tasks = [asyncio.create_task(engine.ascore("q", ["c", "d"])) for _ in range(3)]
    await until(lambda: engine.stats().queued_pairs == 4)
    started = time.monotonic()
    closing = in_thread(engine.close)
    for task in tasks:
        with pytest.raises(EngineClosedError):
            await task
    assert isinstance(error_of(blocked), EngineClosedError)
    with pytest.raises(EngineClosedError):
        engine.score("q", ["later"])
    assert time.monotonic() - started < GRACE_S
    gate.set()
    closing.result(PATIENCE_S)
    # the forward pass that was under way came back after all was over
    assert (engine.stats().queued_pairs, engine.stats().in_flight) == (0, 0)
    assert caplog.text.count("the engine was closed while 4 calls waited") == 1
    engine.close()
    assert_works(make_engine())


def test_closing_an_idle_engine_says_nothing(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    assert_works(engine)
    engine.close()
    assert caplog.text == ""


def test_closing_from_many_threads(make_engine: MakeEngine) -> None:
    before = engine_threads()
    engine = make_engine()
    assert len(engine_threads() - before) >= 2
    for closing in [in_thread(engine.close) for _ in range(8)]:
        closing.result(PATIENCE_S)
    assert engine_threads() <= before


def test_a_forward_pass_that_never_ends_does_not_keep_close_for_ever(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Event()
    engine = make_engine(FakeScorer(gate=gate), FakeScorer(gate=gate), max_batch_tokens=2)
    call = in_thread(engine.score, "q", ["a", "b"])
    wait_until(lambda: engine.stats().in_flight == 2)
    monkeypatch.setattr(CLOSE_TIMEOUT_S, 0.2)
    started = time.monotonic()
    engine.close()
    assert 0.2 <= time.monotonic() - started < 0.2 + GRACE_S
    assert isinstance(error_of(call), EngineClosedError)
    gate.set()


@pytest.mark.parametrize("timeout_s", [None, 3_600])
def test_an_answered_call_leaves_nothing_behind(
    make_engine: MakeEngine, timeout_s: float | None
) -> None:
    """Its texts go at once, not at its deadline, nor when the garbage collector comes."""

    class Text(str):
        __slots__ = ("__weakref__",)

    engine = make_engine(scorer := FakeScorer())
    gc.disable()
    try:
        texts: weakref.WeakSet[Text] = weakref.WeakSet()
        for number in range(20):
            text = Text(number)
            texts.add(text)
            engine.score("q", [text], timeout_s=timeout_s)
        del text
        # the threads still hold the last one
        engine.score("q", ["another"])
        wait_until(lambda: not texts)
        scorer.batches.clear()
        before = len(gc.get_objects())
        for number in range(1_000):
            engine.score("q", [f"{number}"], timeout_s=timeout_s)
        scorer.batches.clear()
        # a deadline that is far away keeps something of a few dozen calls
        assert len(gc.get_objects()) - before < 1_500
    finally:
        gc.enable()


PRELUDE = """
import os, sys, threading, time
from bge_rerank_integrations import *
from callers import locks_of
from fakes import LOAD, FakeScorer, fake_model
from pytest import MonkeyPatch
gate = threading.Event()
scorer = FakeScorer(gate=gate)
MonkeyPatch().setattr(LOAD, lambda _: fake_model(scorer))
engine = RerankEngine.shared("fake", normalize=False)
told = lambda answer: (print(answer), sys.stdout.flush())
def call(*arguments):
    try:
        told(engine.score(*arguments))
    except RerankError as error:
        told(type(error).__name__)
"""


def run(program: str) -> list[str]:
    """What a program of its own prints, until it ends by itself."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = processes.run(PRELUDE + textwrap.dedent(program), environment=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.split()


def test_the_interpreter_ends_while_calls_wait() -> None:
    """A thread that keeps the interpreter is answered first; then those that do not are told."""
    assert run(
        """
        threading.Thread(target=call, args=("q", ["a"])).start()
        assert scorer.entered.wait(10)
        threading.Thread(target=call, args=("q", ["b", "c"]), daemon=True).start()
        while engine.stats().queued_pairs < 3: time.sleep(0.001)
        def release():
            time.sleep(0.2)
            scorer.gate = threading.Event()
            gate.set()
            # the second batch never ends by itself
            threading.Timer(1.0, scorer.gate.set).start()
        threading.Thread(target=release, daemon=True).start()
        """
    ) == [ANSWER, "EngineClosedError"]


def test_the_interpreter_ends_with_an_idle_engine() -> None:
    assert run("gate.set(); call('q', ['a'])") == [ANSWER]


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@fork
def test_a_forked_child_works_whatever_its_parent_did() -> None:
    """Even if another thread held every lock when the process forked."""
    assert run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        held = threading.Event()
        def hold():
            locks = locks_of(engine)
            assert len(locks) > 0 and all(lock.acquire(timeout=5) for lock in locks)
            held.set()
            time.sleep(1)
            for lock in locks:
                lock.release()
        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(10)
        child = os.fork()
        if not child:
            gate.set()
            told(engine.is_alive)
            call("q", ["a"])
            told(engine.stats().pairs)
            engine.close()
            call("q", ["a"])
            fresh = RerankEngine.shared("fake", normalize=False)
            told(fresh.score("q", ["a"]))
            # by way of all exit handlers, those of the parent's engine among them
            sys.exit()
        _, status = os.waitpid(child, 0)
        told(status)
        gate.set()
        call("q", ["a"])
        """
    ) == ["True", ANSWER, "1", "EngineClosedError", ANSWER, "0", ANSWER]


@fork
@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_fork_while_a_model_loads(monkeypatch: pytest.MonkeyPatch, is_waited_for: bool) -> None:
    """It waits for the loading; where that takes too long, the child is refused at once."""
    entered, release = Event(), Event()

    def load(_: object) -> object:
        entered.set()
        assert release.wait(PATIENCE_S)
        return fake_model()

    monkeypatch.setattr(LOAD, load)
    monkeypatch.setattr(FORK_TIMEOUT_S, PATIENCE_S if is_waited_for else 0.05)
    loading = in_thread(RerankEngine.shared, "fake/slow", normalize=False)
    assert entered.wait(PATIENCE_S)
    if is_waited_for:
        Timer(0.2, release.set).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            scores = RerankEngine.shared("fake/slow", normalize=False).score("q", ["a"])
            os._exit(0 if is_waited_for and len(scores) == 1 else 1)
        except ForkedProcessError as error:
            os._exit(0 if not is_waited_for and '"spawn"' in str(error) else 2)
        finally:
            os._exit(3)
    wait_until(lambda: _has_ended(child))
    release.set()
    assert_works(loading.result(PATIENCE_S))
    loading.result().close()


def _has_ended(child: int) -> bool:
    ended, status = os.waitpid(child, os.WNOHANG)
    assert status == 0
    return ended == child
