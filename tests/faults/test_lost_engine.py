"""A thread or a device that is lost: all are told at once, and a fresh engine works."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import threading
import time
import weakref
from collections.abc import Sequence
from threading import Event

import pytest
from callers import (
    GRACE_S,
    PATIENCE_S,
    assert_works,
    engine_threads,
    error_of,
    in_thread,
    is_traced,
    until,
    wait_until,
)
from fakes import LOAD, FakeScorer, Logits, MakeEngine, TokenSequence, digests, fake_model, text_of

from bge_rerank_integrations import EngineFailedError, RerankEngine, ScoringError
from bge_rerank_integrations.engine.scheduling.worker import is_fatal, is_out_of_memory

ASSERT = "CUDA error: device-side assert triggered"


def fatal(batch: Sequence[TokenSequence]) -> Logits:
    """A scorer's answer that loses the device if a document asks for it."""
    if any(text_of(pair) == "fatal" for pair in batch):
        raise RuntimeError(ASSERT)
    return digests(batch)


def kill(thread: threading.Thread) -> None:
    """End a thread from outside, as a debugger or a supervisor would."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )


async def test_a_fatal_device_error_answers_all_at_once(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Event()
    scorer = FakeScorer(fatal, gate=gate)
    engine = make_engine(scorer, max_queued_pairs=4, queue_timeout_s=60)
    blocked = in_thread(engine.score, "q", ["fatal", "b"])
    assert scorer.entered.wait(PATIENCE_S)
    # one queued behind it, one that waits for a place
    tasks = [asyncio.create_task(engine.ascore("q", ["c", "d"])) for _ in range(2)]
    await until(lambda: engine.stats().queued_pairs == 4)
    gate.set()
    started = time.monotonic()
    for error in (error_of(blocked), *await asyncio.gather(*tasks, return_exceptions=True)):
        assert isinstance(error, EngineFailedError)
        assert ASSERT in str(error)
        assert isinstance(error.__cause__, RuntimeError)
    with pytest.raises(EngineFailedError, match="device-side assert"):
        engine.rerank("q", ["later"])
    assert time.monotonic() - started < GRACE_S
    assert not engine.is_alive
    stats = engine.stats()
    assert (stats.state, stats.queued_pairs, stats.in_flight) == ("failed", 0, 0)
    wait_until(lambda: "the engine failed and will answer no more calls" in caplog.text)
    engine.close()
    assert engine.stats().state == "closed"
    assert_works(make_engine())


def test_a_shared_engine_that_failed_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOAD, lambda _: fake_model(FakeScorer(fatal)))
    broken = RerankEngine.shared("fake/failing", normalize=False)
    with pytest.raises(EngineFailedError):
        broken.score("q", ["fatal"])
    fresh = RerankEngine.shared("fake/failing", normalize=False)
    assert fresh is not broken
    assert_works(fresh)
    fresh.close()


def test_a_failed_engine_lets_go_of_the_model(make_engine: MakeEngine) -> None:
    """Or there would be no memory left for a fresh one."""
    before = engine_threads()
    scorer = FakeScorer(fatal)
    model = weakref.ref(scorer)
    engine = make_engine(scorer)
    del scorer
    with pytest.raises(EngineFailedError):
        engine.score("q", ["fatal"])
    wait_until(lambda: engine_threads() <= before)
    gc.collect()
    assert engine.stats().state == "failed"
    assert model() is None


@pytest.mark.skipif(is_traced(), reason="an exception from outside may hang in a tracer's code")
@pytest.mark.parametrize("name", ["deadlines", "tokenizer", "scorer-0"])
def test_a_killed_thread_fails_the_engine(make_engine: MakeEngine, name: str) -> None:
    gate, before = Event(), engine_threads()
    scorer = FakeScorer(gate=gate)
    engine = make_engine(scorer)
    (thread,) = [t for t in engine_threads() - before if t.name == f"bge-rerank-{name}"]
    call = in_thread(engine.score, "q", ["a", "b"])
    assert scorer.entered.wait(PATIENCE_S)
    kill(thread)
    # a thread is killed when it wakes: the scorer at its gate, the others for what comes next
    late = in_thread(engine.score, "q", ["c"], timeout_s=0.05)
    wait_until(lambda: gate.is_set() or name == "scorer-0" or not thread.is_alive())
    gate.set()
    error = error_of(call)
    assert isinstance(error, EngineFailedError)
    assert isinstance(error.__cause__, SystemExit)
    assert error_of(late) is not None
    with pytest.raises(EngineFailedError, match="SystemExit"):
        engine.score("q", ["later"])
    assert_works(make_engine())


def test_the_other_replicas_go_on(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """A lost device fails what it was scoring; only the last one ends the engine."""
    gate, entered = Event(), Event()

    def answer(batch: Sequence[TokenSequence]) -> Logits:
        if text_of(batch[0]) == "held":
            entered.set()
            assert gate.wait(20)
        return fatal(batch)

    engine = make_engine(FakeScorer(answer), FakeScorer(answer), max_batch_tokens=4)
    held = in_thread(engine.score, "q", ["held"])
    assert entered.wait(PATIENCE_S)
    # the other replica is the one that is free
    lost = error_of(in_thread(engine.score, "q", ["fatal"]))
    assert isinstance(lost, ScoringError)
    assert "cpu was lost while it scored this call" in str(lost)
    assert isinstance(lost.__cause__, RuntimeError)
    gate.set()
    assert len(held.result(PATIENCE_S)) == 1
    wait_until(lambda: "cpu is lost, the other devices go on" in caplog.text)
    stats = engine.stats()
    assert (stats.state, stats.lost_devices, stats.failures) == ("ready", ("cpu",), 1)
    assert_works(engine)
    with pytest.raises(EngineFailedError):
        engine.score("q", ["fatal"])
    assert engine.stats().state == "failed"


def test_a_log_that_hangs_keeps_no_caller_waiting(make_engine: MakeEngine) -> None:
    release = Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            release.wait(PATIENCE_S)

    handler = Stuck()
    logger = logging.getLogger("bge_rerank_integrations")
    logger.addHandler(handler)
    try:
        engine = make_engine(FakeScorer(fatal))
        with pytest.raises(EngineFailedError):
            engine.score("q", ["fatal"], timeout_s=GRACE_S)
    finally:
        logger.removeHandler(handler)
        release.set()


def test_a_system_without_threads_left_leaves_none_behind(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "scorer" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        make_engine()
    monkeypatch.undo()
    assert threading.active_count() == before
    assert_works(make_engine())


@pytest.mark.parametrize(
    "message",
    [
        ASSERT,
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: an illegal instruction was encountered",
        "CUDA error: misaligned address",
        "CUDA error: unspecified launch failure",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: uncorrectable NVLink error detected during the execution",
        "CUDA error: hardware stack error",
        "CUDA error: invalid program counter",
        "CUDA error: operation not supported on global/shared address space",
        "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
        "CUDA error: tensor memory not completely freed",
        "CUDA error: an async error has occured in external entity outside of CUDA",
        "CUDA error: the MPS client has been terminated by the server",
        "CUDA error: context is destroyed",
        "CUDA error: unknown error",
    ],
)
def test_errors_that_lose_the_device(message: str) -> None:
    assert is_fatal(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize(
    "message",
    ["CUDA error: out of memory", "CUDA error: invalid configuration argument", "shape mismatch"],
)
def test_errors_that_do_not(message: str) -> None:
    assert not is_fatal(RuntimeError(message))
