"""How the engine behaves with many callers, many pairs, many replicas, and at its start.

    python -m benchmarks.scale MODEL --output results/scale.json

Prints ratios within one run. Memory is read from ``/proc``, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from benchmarks.machine import describe_machine, memory_mib
from benchmarks.sleeping import SleepingScorer, sleeping_engine
from benchmarks.texts import Pair, read_pairs
from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.engine.loading.model import load

CALLERS, DOCUMENTS = 32, 20
SIZES = (200, 2_000, 20_000)


def main() -> None:
    """Measure everything and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--collection", type=Path, action="append", default=[])
    parser.add_argument("--words", type=int, default=60, help="of a passage, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = read_pairs(arguments.collection, 300)
    # a number in front: no two texts are equal, so that remembered token ids do not help
    numbered = (
        (query, " ".join([str(number), *passage.split()[: arguments.words]]))
        for number, (query, passage) in enumerate(cycle(found))
    )
    machine = describe_machine()
    with RerankEngine(arguments.model) as engine:
        engine.score_pairs(list(islice(numbered, 200)))
        figures: dict[str, object] = {
            "model": Path(arguments.model).name,
            "machine": machine,
            "callers": callers_against_bulk(engine, numbered, arguments.rounds),
            "linear": linear_cost(engine, numbered, arguments.rounds),
        }
    figures["idle_call_ms_over_forward_pass"] = idle_overhead_ms(arguments.model, found)
    figures["cache"] = cache_speedup(arguments.model, found, arguments.rounds)
    figures["host_pairs_per_s"] = host_throughput(arguments.model, numbered, arguments.rounds)
    figures["replicas"] = {count: replica_scaling(count) for count in (2, 4, 8)}
    figures["start"] = start_seconds(arguments.model)
    print(json.dumps(figures, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def callers_against_bulk(
    engine: RerankEngine, pairs: Iterator[Pair], rounds: int
) -> dict[str, float]:
    """Throughput of concurrent calls over that of one bulk call with the same number of tokens."""
    ratios = []
    with ThreadPoolExecutor(CALLERS) as threads:
        for _ in range(rounds):
            calls = _calls(pairs)
            started = time.perf_counter()
            list(threads.map(lambda c: engine.score(c[0][0], [d for _, d in c]), calls))
            together = time.perf_counter() - started
            bulk = [pair for call in _calls(pairs) for pair in call]
            started = time.perf_counter()
            engine.score_pairs(bulk)
            ratios.append((time.perf_counter() - started) / together)
    return {"callers": CALLERS, "documents": DOCUMENTS, "throughput_over_bulk": median(ratios)}


def _calls(pairs: Iterator[Pair]) -> list[list[Pair]]:
    """A call for each caller, of several documents to one query."""
    calls = []
    for _ in range(CALLERS):
        of_call = list(islice(pairs, DOCUMENTS))
        calls.append([(of_call[0][0], document) for _, document in of_call])
    return calls


def linear_cost(engine: RerankEngine, pairs: Iterator[Pair], rounds: int) -> dict[str, object]:
    """CPU time a token for few and many pairs, over that for the fewest; and the memory."""
    spent: dict[int, list[float]] = {size: [] for size in SIZES}
    memory: dict[int, float] = {}
    # the largest once; the others as often before as after it
    for number in range(rounds):
        for size in SIZES if number == rounds // 2 else SIZES[:-1]:
            # about as many pairs of each size, so that noise meets all alike
            for _ in range(max(SIZES[1] // size, 1)):
                texts = list(islice(pairs, size))
                before = engine.stats().tokens
                started = time.process_time()
                engine.score_pairs(iter(texts))
                seconds = time.process_time() - started
                spent[size].append(seconds / (engine.stats().tokens - before))
            memory[size] = memory_mib("VmRSS")
    per_token = {size: median(values) for size, values in spent.items()}
    return {
        "cpu_us_per_token": {size: 1e6 * value for size, value in per_token.items()},
        "over_fewest": {size: value / per_token[SIZES[0]] for size, value in per_token.items()},
        "resident_mib_after": memory,
    }


class Timed:
    """A function, and the seconds that it has taken in all."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = self._function(*arguments)
        self.seconds += time.perf_counter() - started
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def idle_overhead_ms(model: str, pairs: Sequence[Pair]) -> float:
    """What a call to an idle engine takes beyond tokenization and forward pass, median.

    The two are timed within the call: by themselves they vary by more than what is looked for.
    """
    loaded = load(EngineConfig(model))
    tokenize, score = Timed(loaded.tokenizer), Timed(loaded.scorers[0].score)
    timed: Any = replace(
        loaded, tokenizer=tokenize, scorers=(SimpleNamespace(padded=False, score=score),)
    )
    over = []
    engine = RerankEngine.on(timed, EngineConfig(model))
    for number in range(300):
        query, passage = pairs[number % len(pairs)]
        bare = tokenize.seconds + score.seconds
        started = time.perf_counter()
        engine.score(query, [f"{number} {' '.join(passage.split()[:60])}"])
        call = time.perf_counter() - started
        over.append(call - (tokenize.seconds + score.seconds - bare))
    engine.close()
    return 1e3 * median(over)


def cache_speedup(model: str, pairs: Sequence[Pair], rounds: int) -> dict[str, float]:
    """Remembered documents against unknown ones: tokenization alone, and a call as a whole."""
    loaded = load(EngineConfig(model))
    pairs = pairs[:100]
    documents = [document for _, document in pairs]
    tokenize: dict[str, list[float]] = {"known": [], "new": []}
    calls: dict[str, list[float]] = {"known": [], "new": []}
    with RerankEngine(model) as engine:
        layout = loaded.tokenizer.layout(engine.options)
        loaded.tokenizer(pairs, layout)
        engine.score("warm up", documents)
        for number in range(rounds):
            texts = {"known": documents, "new": [f"{number} {text}" for text in documents]}
            for kind, of_kind in texts.items():
                query = f"query {number} {kind}"
                started = time.perf_counter()
                loaded.tokenizer([(query, document) for document in of_kind], layout)
                tokenize[kind].append(time.perf_counter() - started)
                started = time.perf_counter()
                engine.score(query, of_kind)
                calls[kind].append(time.perf_counter() - started)
        hit_rate = engine.stats().cache_hit_rate
    return {
        "tokenization_faster_by": median(tokenize["new"]) / median(tokenize["known"]),
        "call_faster_by": median(calls["new"]) / median(calls["known"]),
        "tokenization_share_of_a_call": median(tokenize["new"]) / median(calls["new"]),
        "hit_rate": hit_rate,
    }


def host_throughput(model: str, pairs: Iterator[Pair], rounds: int) -> dict[str, float]:
    """Pairs a second that tokenizer and queue hand to a device that takes no time."""
    config = EngineConfig(model)
    loaded = replace(
        load(config), scorers=(SleepingScorer(lambda _: 0.0),), max_batch_tokens=16_384
    )
    seconds: dict[str, list[float]] = {"new": [], "known": []}
    with RerankEngine.on(loaded, config) as engine:
        for _ in range(rounds):
            texts = list(islice(pairs, SIZES[1]))
            for kind in seconds:
                started = time.perf_counter()
                engine.score_pairs(texts)
                seconds[kind].append(time.perf_counter() - started)
    return {kind: SIZES[1] / median(spent) for kind, spent in seconds.items()}


def replica_scaling(count: int) -> float:
    """Throughput of several replicas behind one queue, over as many times that of one."""

    def seconds(replicas: int) -> float:
        scorers = [SleepingScorer(lambda _: 0.01) for _ in range(replicas)]
        # ten pairs a batch: two seconds of sleep for one replica
        documents = [f"document {number}" for number in range(2_000 * replicas)]
        with sleeping_engine(*scorers, tokens=64, max_batch_tokens=640) as engine:
            started = time.perf_counter()
            engine.score("query", documents)
            return time.perf_counter() - started

    return median(seconds(1) / seconds(count) for _ in range(3))


def start_seconds(model: str) -> dict[str, float]:
    """A fresh process: importing the package, and a first score with everything before it."""
    clock = "import time; t = time.perf_counter(); "
    says = "; print(time.perf_counter() - t)"
    engine = f"RerankEngine({model!r})"
    programs = {
        "import_s": "import bge_rerank_integrations",
        "first_score_s": "from bge_rerank_integrations import RerankEngine; "
        f"{engine}.rerank('query', ['a document'])",
    }
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return {
        name: median(
            float(
                subprocess.run(
                    [sys.executable, "-c", clock + program + says],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=environment,
                ).stdout
            )
            for _ in range(5)
        )
        for name, program in programs.items()
    }


if __name__ == "__main__":
    main()
