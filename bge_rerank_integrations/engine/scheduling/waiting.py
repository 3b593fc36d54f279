"""One description of a call, two ways to wait for it: in a thread or on an event loop.

A call is a generator that yields the futures it needs and is sent their answers, so that the sync
and the async method of the engine share every line but the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import TypeVar

from bge_rerank_integrations.engine.scheduling.jobs import Scored

T = TypeVar("T")
Steps = Generator["Future[Scored]", Scored, T]


def run(steps: Steps[T]) -> T:
    """Run a call, blocking this thread at each future."""
    try:
        future = next(steps)
        while True:
            future = steps.send(_wait(future))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


async def run_async(steps: Steps[T]) -> T:
    """Run a call, awaiting each future; cancelling the task cancels the future."""
    try:
        future = next(steps)
        while True:
            future = steps.send(await asyncio.wrap_future(future))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


def _wait(future: Future[Scored]) -> Scored:
    try:
        return future.result()
    except BaseException:
        # Ctrl-C in the waiting thread: the work is nobody's any more
        future.cancel()
        raise
