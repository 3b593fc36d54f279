"""Callers that check what they are answered, and when."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from fakes import digest

from bge_rerank_integrations import RerankEngine

PACKAGE = "bge_rerank_integrations"
# Nothing in these tests takes long; a call that is not answered by then never is.
PATIENCE_S = 10.0
# a deadline may be missed by this much
GRACE_S = 1.0


def in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Make a call in a thread of its own; the future answers what the caller got."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call(*args, **kwargs))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    return answer


def error_of(call: Future[Any]) -> BaseException:
    """What a call failed with."""
    error = call.exception(PATIENCE_S)
    assert error is not None
    return error


def expected(query: str, documents: Sequence[str]) -> list[float]:
    """The scores of the fakes."""
    return [digest(query, document) for document in documents]


def assert_works(engine: RerankEngine) -> None:
    """The next good call succeeds, and nothing is left of those before it."""
    documents = [f"good document {number}" for number in range(5)]
    assert engine.score("after", documents, timeout_s=PATIENCE_S) == expected("after", documents)
    stats = engine.stats()
    assert (stats.queued_pairs, stats.in_flight, stats.state) == (0, 0, "ready")


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a state that another thread is about to reach."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "the state was not reached"
        time.sleep(0.001)


async def until(holds: Callable[[], bool]) -> None:
    """Wait like :func:`wait_until`, while the event loop runs on."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "the state was not reached"
        await asyncio.sleep(0.001)


def engine_threads() -> set[Thread]:
    """The threads of all engines in this process, by their names."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("bge-rerank-")}


def is_traced() -> bool:
    """Whether a tracer runs, such as a debugger's or that of coverage."""
    monitoring = getattr(sys, "monitoring", None)
    tools = [] if monitoring is None else [monitoring.get_tool(number) for number in range(6)]
    return sys.gettrace() is not None or any(tools)


def locks_of(engine: RerankEngine) -> list[Any]:
    """Every lock that an engine's objects hold."""
    kinds = type(threading.Lock()), type(threading.RLock())
    containers = dict, list, tuple, set, OrderedDict
    found: dict[int, Any] = {}
    seen: set[int] = set()
    to_see: list[Any] = [engine]
    while to_see:
        thing = to_see.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, kinds):
            found[id(thing)] = thing
        elif isinstance(thing, threading.Condition):
            # not those of the threads that wait for it: each holds its own
            to_see.append(thing._lock)  # type: ignore[attr-defined]
        elif isinstance(thing, containers) or type(thing).__module__.startswith(PACKAGE):
            to_see += gc.get_referents(thing)
    return list(found.values())
