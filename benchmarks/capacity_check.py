"""The simulation of :mod:`capacity` against real servers, whose model only takes its time.

Everything but the forward pass is real: HTTP on this machine, the server, the engine's queue and
scheduler. The pass sleeps for as long as the described replica would compute, so the check needs no
accelerator and leaves the processor to what is checked.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import numpy as np
import uvicorn

from benchmarks.capacity import Replica, simulate, waits
from benchmarks.machine import describe_machine
from bge_rerank_integrations import EngineConfig, Ranking, RemoteReranker
from bge_rerank_integrations.engine.batching import TokenizedPair
from bge_rerank_integrations.engine.scheduler import Scheduler
from bge_rerank_integrations.engine.stats import EngineStats
from bge_rerank_integrations.ranking import rank
from bge_rerank_integrations.serving.app import create_app

REPLICA = Replica(pass_s=0.04, pair_s=0.001, pass_pairs=64)
LOADS = (0.4, 0.7, 0.9)
PAIRS = 20
REQUESTS = 400


class _PacedScorer:
    """Takes its time, and gives every pair the same logit."""

    padded = False

    def score(self, batch: Sequence[TokenizedPair]) -> np.ndarray:
        time.sleep(REPLICA.seconds(len(batch)))
        return np.zeros((len(batch), 1), dtype=np.float32)


class _PacedEngine:
    """What a server needs of an engine, round a real scheduler."""

    model = "paced"
    max_length = 512
    is_alive = True

    def __init__(self) -> None:
        self.config = EngineConfig("tiny", normalize=False)
        self._scheduler = Scheduler(
            _one_token_each,
            [_PacedScorer()],
            max_batch_tokens=REPLICA.pass_pairs,
            max_queued_pairs=100_000,
        )

    def stats(self) -> EngineStats:
        return EngineStats("ready", self.model, "none", "none", 0, 0, 0, 0, 0, 0, 0, 0)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,  # noqa: ARG002  # a server keeps all and selects itself
        score_threshold: float | None = None,  # noqa: ARG002
        *,
        timeout_s: float | None = None,
    ) -> Ranking:
        pairs = [(query, document) for document in documents]
        future = self._scheduler.submit(
            pairs, range(len(pairs)), timeout_s=timeout_s, queue_timeout_s=0.0
        )
        scored = await asyncio.wrap_future(future)
        logits = scored.logits[:, -1].tolist()
        return Ranking(rank(logits, normalize=False), scored.tokens, self.model)

    def close(self) -> None:
        self._scheduler.close()


def _one_token_each(pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
    return [[TokenizedPair(np.zeros(1, dtype=np.int32), 0, 1)] for _ in pairs]


@contextmanager
def _server() -> Iterator[str]:
    engine = _PacedEngine()
    # asyncio switches off Nagle's algorithm, 40 ms here, only where the protocol is named
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(engine), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        host, port = listening.getsockname()
        yield f"http://{host}:{port}"
        server.should_exit = True
        thread.join()
    engine.close()


async def _ask(urls: Sequence[str], rate: float) -> list[float]:
    """Latencies of requests at random times, each to the less busy of two servers."""
    chance = random.Random(1)
    rerankers = [RemoteReranker(url) for url in urls]
    outstanding = [0] * len(urls)
    latencies: list[float] = []
    documents = [f"document {number}" for number in range(PAIRS)]

    async def one() -> None:
        two = chance.sample(range(len(urls)), min(2, len(urls)))
        number = min(two, key=outstanding.__getitem__)
        outstanding[number] += 1
        start = time.perf_counter()
        await rerankers[number].arerank("query", documents)
        latencies.append(time.perf_counter() - start)
        outstanding[number] -= 1

    tasks = []
    due = time.perf_counter()
    for _ in range(REQUESTS):
        due += chance.expovariate(rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    for reranker in rerankers:
        await reranker.aclose()
    return latencies


def check() -> Iterator[dict[str, object]]:
    """Simulated and measured waits, for one and two replicas, after what they ran on.

    So few requests wait differently each time they come, near saturation above all; the simulation
    therefore gives the range of nine runs out of ten.
    """
    yield {"machine": describe_machine(), **asdict(REPLICA), "requests": REQUESTS}
    for replicas in (1, 2):
        with ExitStack() as stack:
            urls = [stack.enter_context(_server()) for _ in range(replicas)]
            for load in LOADS:
                runs = [
                    simulate(REPLICA, replicas, load, PAIRS, REQUESTS, seed) for seed in range(100)
                ]
                rate = runs[0].requests_per_s
                measured = waits(asyncio.run(_ask(urls, rate)), replicas, load, rate)
                yield {
                    "replicas": replicas,
                    "load": load,
                    "requests_per_s": rate,
                    "simulated_p50_ms": _range([run.p50_ms for run in runs]),
                    "measured_p50_ms": measured.p50_ms,
                    "simulated_p95_ms": _range([run.p95_ms for run in runs]),
                    "measured_p95_ms": measured.p95_ms,
                }


def _range(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]]
