"""Callers that check what they are answered, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from fakes import digest

from bge_rerank_integrations import RerankEngine

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
