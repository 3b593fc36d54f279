"""close(), the end of the interpreter, and processes that fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from threading import Event

import pytest
from callers import GRACE_S, PATIENCE_S, assert_works, error_of, in_thread, wait_until
from conftest import MakeEngine
from fakes import FakeScorer, digest, fake_model

from bge_rerank_integrations import EngineClosedError, RerankEngine
from bge_rerank_integrations.engine.scheduling.jobs import Job

TESTS = Path(__file__).parents[1]
ANSWER = f"[{digest('q', 'a')}]"


def test_closing_with_calls_waiting_at_every_stage(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Event()
    scorer = FakeScorer(gate=gate)
    engine = make_engine(scorer, max_queued_pairs=4, queue_timeout_s=60)
    calls = [in_thread(engine.score, "q", ["a", "b"])]
    assert scorer.entered.wait(PATIENCE_S)
    calls += [in_thread(engine.score, "q", ["c", "d"]) for _ in range(3)]
    wait_until(lambda: len(engine._running.scheduler._queue._jobs) == 4)
    started = time.monotonic()
    closing = in_thread(engine.close)
    for call in calls:
        assert isinstance(error_of(call), EngineClosedError)
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
    engine = make_engine()
    for closing in [in_thread(engine.close) for _ in range(8)]:
        closing.result(PATIENCE_S)
    assert not any(thread.is_alive() for thread in engine._running.scheduler._threads)


def test_a_forward_pass_that_never_ends_does_not_keep_close_for_ever() -> None:
    from fakes import scheduler

    gate = Event()
    running = scheduler(FakeScorer(gate=gate), FakeScorer(gate=gate), max_batch_tokens=2)
    call = running.submit([("q", "a"), ("q", "b")], [0, 1], timeout_s=None, queue_timeout_s=0)
    wait_until(lambda: running.in_flight == 2)
    started = time.monotonic()
    running.close(join_timeout_s=0.2)
    assert time.monotonic() - started < 0.2 + GRACE_S
    assert isinstance(error_of(call), EngineClosedError)
    gate.set()


def test_an_answered_call_leaves_nothing_behind(make_engine: MakeEngine) -> None:
    """Not even until the garbage collector comes."""

    def jobs() -> int:
        return sum(type(thing) is Job for thing in gc.get_objects())

    engine = make_engine()
    before = jobs()
    gc.disable()
    try:
        for number in range(50):
            engine.score("q", [f"{number}"])
        # the threads still hold the last one
        assert jobs() <= before + 1
    finally:
        gc.enable()


PRELUDE = """
import os, sys, threading, time
import bge_rerank_integrations.engine.running_model as module
from bge_rerank_integrations import *
from fakes import FakeScorer, digest, fake_model
gate = threading.Event()
scorer = FakeScorer(gate=gate)
module.load = lambda _: fake_model(scorer)
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
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
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
            scorer._gate = threading.Event()
            gate.set()
            # the second batch never ends by itself
            threading.Timer(1.0, scorer._gate.set).start()
        threading.Thread(target=release, daemon=True).start()
        """
    ) == [ANSWER, "EngineClosedError"]


def test_the_interpreter_ends_with_an_idle_engine() -> None:
    assert run("gate.set(); call('q', ['a'])") == [ANSWER]


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@fork
def test_a_forked_child_can_neither_hang_nor_be_answered_wrongly() -> None:
    """Even if another thread held every lock when the process forked."""
    assert run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        held = threading.Event()
        def hold():
            with engine._running.scheduler._queue._lock:
                held.set()
                time.sleep(1)
        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(10)
        child = os.fork()
        if not child:
            call("q", ["a"])
            told(engine.is_alive)
            told(engine.stats().state)
            engine.close()
            gate.set()
            fresh = RerankEngine.shared("fake", normalize=False)
            told(fresh.score("q", ["a"]))
            # by way of all exit handlers, those of the parent's engine among them
            sys.exit()
        _, status = os.waitpid(child, 0)
        told(status)
        gate.set()
        call("q", ["a"])
        """
    ) == ["ForkedProcessError", "False", "closed", ANSWER, "0", ANSWER]


@fork
def test_a_fork_while_a_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = Event(), Event()

    def load(_: object) -> object:
        entered.set()
        assert release.wait(PATIENCE_S)
        return fake_model()

    monkeypatch.setattr("bge_rerank_integrations.engine.running_model.load", load)
    loading = in_thread(RerankEngine.shared, "fake/slow", normalize=False)
    assert entered.wait(PATIENCE_S)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            release.set()
            scores = RerankEngine.shared("fake/slow", normalize=False).score("q", ["a"])
            os._exit(0 if len(scores) == 1 else 1)
        finally:
            os._exit(2)
    wait_until(lambda: _has_ended(child))
    release.set()
    assert_works(loading.result(PATIENCE_S))
    loading.result().close()


def _has_ended(child: int) -> bool:
    ended, status = os.waitpid(child, os.WNOHANG)
    assert status == 0
    return ended == child
