"""Soak: many calls of all kinds to one engine; memory, threads and files must not grow.

    python -m benchmarks.soak --calls 20000 --machine "2-core AMD EPYC, no GPU"

Every text is new, and the token cache is full after the warm-up: it forgets as it learns. Some
calls are cancelled, some run out of time, some are wrong. Runs on Linux (it reads ``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import bge_rerank_integrations
from benchmarks.machine import memory_mib
from bge_rerank_integrations import DeadlineError, InputError, RerankEngine

ROOT = Path(__file__).parents[1]
THREADS = 4
SAMPLE_EVERY = 500
MAX_SLOPE_MB = 1.0


def main() -> int:
    """Run, write the figures, and say whether they are within bounds."""
    options = _options()
    with RerankEngine(options.model, device=options.device, max_queued_pairs=2_000) as engine:
        _fill_the_cache(engine)
        _run(engine, options.warm_up, "warm-up", lambda _: None)
        before = _usage()
        samples: list[tuple[int, float]] = []
        started = time.perf_counter()
        outcomes = _run(
            engine, options.calls, "soak", lambda n: samples.append((n, _usage()["memory_mb"]))
        )
        seconds = time.perf_counter() - started
        after, stats = _usage(), engine.stats()
    calls, memory = np.array(samples).T
    slope = float(np.polyfit(calls / 1_000, memory, 1)[0])
    figures = {
        "calls": options.calls,
        "warm_up_calls": options.warm_up,
        "seconds": round(seconds, 1),
        "outcomes": dict(sorted(outcomes.items())),
        "memory_mb_per_1000_calls": round(slope, 4),
        "before": before,
        "after": after,
        "queued_pairs_after": stats.queued_pairs,
        "in_flight_after": stats.in_flight,
        "pairs_scored": stats.pairs,
        "cache_hits": stats.cache_hits,
        "model": Path(options.model).name,
        "machine": options.machine,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "version": bge_rerank_integrations.__version__,
    }
    print(json.dumps(figures, indent=2))
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    is_flat = slope < MAX_SLOPE_MB and stats.queued_pairs == stats.in_flight == 0
    constant = all(before[name] == after[name] for name in ("threads", "files"))
    return 0 if is_flat and constant else 1


def _fill_the_cache(engine: RerankEngine) -> None:
    """Fill the token cache with texts like those to come, without scoring them."""
    for number in range(20_000):
        _, query, documents = _texts(f"cached-{number}")
        # no public way fills the cache without a forward pass; the engine is idle meanwhile
        tokenizer = engine._running.tokenizer
        pairs = [(query, document) for document in documents]
        tokenizer(pairs, tokenizer.layout(engine.options))


def _run(
    engine: RerankEngine, calls: int, name: str, sample: Callable[[int], None]
) -> Counter[str]:
    """Make calls from several threads; half of them from event loops."""
    outcomes: Counter[str] = Counter()
    numbers = iter(range(calls))
    lock = threading.Lock()

    def next_number() -> int | None:
        with lock:
            number = next(numbers, None)
            if number is not None and number % SAMPLE_EVERY == 0:
                sample(number)
                print(f"{name}: {number} of {calls}, {_usage()}", file=sys.stderr)
            return number

    def count(outcome: str) -> None:
        with lock:
            outcomes[outcome] += 1

    def work() -> None:
        while (number := next_number()) is not None:
            count(_call(engine, f"{name}-{number}"))

    async def work_async() -> None:
        while (number := next_number()) is not None:
            count(await _acall(engine, f"{name}-{number}"))

    async def several() -> None:
        await asyncio.gather(*(work_async() for _ in range(4)))

    kinds = [work if number % 2 else lambda: asyncio.run(several()) for number in range(THREADS)]
    threads = [threading.Thread(target=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # a joined thread is in the system's list for a moment more
    time.sleep(1)
    return outcomes


def _call(engine: RerankEngine, name: str) -> str:
    chance, query, documents = _texts(name)
    try:
        if chance < 0.02:
            engine.rerank(query, [*documents, None])  # type: ignore[list-item]
        elif chance < 0.04:
            engine.score(query, documents, timeout_s=0.0005)
        elif chance < 0.2:
            engine.score_pairs((query, document) for document in documents)
        else:
            engine.rerank(query, documents, top_n=3, timeout_s=60)
    except (InputError, DeadlineError) as error:
        return type(error).__name__
    return "answered"


async def _acall(engine: RerankEngine, name: str) -> str:
    chance, query, documents = _texts(name)
    if chance >= 0.1:
        await engine.arerank(query, documents)
        return "answered"
    call = asyncio.create_task(engine.arerank(query, documents))
    await asyncio.sleep(chance / 20)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    return "cancelled" if call.cancelled() else "answered"


def _texts(name: str) -> tuple[float, str, list[str]]:
    """A chance, a query and documents, the same at every run."""
    chooser = random.Random(name)
    words = [f"{chooser.randrange(36**4):x}" for _ in range(40)]
    documents = [
        " ".join(chooser.choices(words, k=chooser.randrange(1, 40)))
        for _ in range(chooser.randrange(1, 8))
    ]
    return chooser.random(), " ".join(words[:8]), documents


def _usage() -> dict[str, float]:
    """Resident memory, threads and open files of this process."""
    return {
        "memory_mb": round(memory_mib("VmRSS"), 2),
        # the system's, which has those of torch and of the tokenizer too
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--warm-up", type=int, default=4_000)
    parser.add_argument("--model", default=str(ROOT / "tests" / "golden" / "xlmr"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
