"""A server under load: a burst, more than it can answer, small callers beside greedy ones.

::

    python -m benchmarks.load --machine "2-core AMD EPYC" --output benchmarks/results/load.json

The server has one core and its default ``--max-wait-s 5``, the clients another core. Requests have
20 documents. Runs on Linux (it pins processes, and reads ``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import time
from pathlib import Path

import httpx

from benchmarks.capacity_load import Texts
from benchmarks.capacity_servers import Server, start
from benchmarks.machine import describe_machine
from benchmarks.overload import CLIENT_CORE, SERVER_CORE, Clients, Outcome, percentile

TARGET_S = 5.0
DOCUMENTS = 20
GREEDY_CLIENTS, GREEDY_DOCUMENTS = 8, 100
SMALL_EVERY_S = 0.5


class Burst(Clients):
    """Requests that all come at once, each on a connection that is open already."""

    def burst(self, count: int) -> Outcome:
        """Send so many requests at the same time."""

        async def run(http: httpx.AsyncClient) -> None:
            await asyncio.gather(*(http.get(f"{self.url}/health") for _ in range(count)))
            await asyncio.gather(*(self.request(http, 60.0) for _ in range(count)))

        return self.measure(run)


def _beside_greedy_ones(server: Server, seconds: float) -> list[float]:
    """Seconds of the requests with one document, while others send large ones in a loop."""
    texts = Texts(1)

    async def ask(http: httpx.AsyncClient, documents: int) -> httpx.Response:
        query, passages = texts.request(documents)
        return await http.post(f"{server.url}/rerank", json={"query": query, "documents": passages})

    async def greedy(http: httpx.AsyncClient) -> None:
        while True:
            response = await ask(http, GREEDY_DOCUMENTS)
            await asyncio.sleep(float(response.headers.get("retry-after", 0)))

    async def main() -> list[float]:
        latencies = []
        async with httpx.AsyncClient(timeout=None) as http:
            others = [asyncio.create_task(greedy(http)) for _ in range(GREEDY_CLIENTS)]
            await asyncio.sleep(2)
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                (await ask(http, 1)).raise_for_status()
                latencies.append(time.perf_counter() - began)
                await asyncio.sleep(SMALL_EVERY_S)
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        return latencies

    return asyncio.run(main())


def _figures(outcome: Outcome, capacity: float) -> dict[str, float]:
    return {
        "requests": len(outcome.answered) + len(outcome.refused) + outcome.given_up,
        "answered_in_target": outcome.within(TARGET_S),
        "answered_late": len(outcome.answered) - outcome.within(TARGET_S),
        "hung": outcome.given_up,
        "refused": len(outcome.refused),
        "answered_longest_s": max(outcome.answered, default=0.0),
        "refused_p50_ms": 1e3 * percentile(outcome.refused, 50),
        "refused_p95_ms": 1e3 * percentile(outcome.refused, 95),
        "refused_longest_ms": 1e3 * max(outcome.refused, default=0.0),
        "share_of_capacity": outcome.within(TARGET_S) / outcome.wall_s / capacity,
    }


def main() -> None:
    """Measure, print and write the figures."""
    options = _options()
    os.sched_setaffinity(0, {CLIENT_CORE})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (4_096, hard))
    more = ("--max-wait-s", str(TARGET_S), "--max-connections", str(3 * options.burst))
    figures: dict[str, object] = {}
    with start(
        options.model, max_queued_pairs=100_000, timeout_s=60.0, core=SERVER_CORE, more=more
    ) as server:
        clients = Burst(server, DOCUMENTS, 0)
        clients.closed_loop(options.seconds / 4)
        load_before = os.getloadavg()[0]
        before = clients.closed_loop(options.seconds / 2)
        loads = {times: _load(clients, times, before, options.seconds) for times in (5, 20)}
        after = clients.closed_loop(options.seconds / 2)
        capacity = (len(before.answered) + len(after.answered)) / (before.wall_s + after.wall_s)
        figures["capacity_requests_per_s"] = capacity
        for times, outcome in loads.items():
            figures[f"{times} times the capacity"] = _figures(outcome, capacity)
        burst = clients.burst(options.burst)
        figures["burst"] = _figures(burst, capacity)
        small = _beside_greedy_ones(server, options.seconds / 2)
        figures["small beside greedy"] = {
            "requests": len(small),
            "greedy_clients": GREEDY_CLIENTS,
            "greedy_documents": GREEDY_DOCUMENTS,
            "p50_s": percentile(small, 50),
            "longest_s": max(small),
        }
    figures |= {"documents": DOCUMENTS, "target_s": TARGET_S, "load_before": round(load_before, 1)}
    figures["machine"] = {"name": options.machine, **describe_machine()}
    print(json.dumps(figures, indent=2))
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _load(clients: Clients, times: int, before: Outcome, seconds: float) -> Outcome:
    return clients.open_loop(times * len(before.answered) / before.wall_s, seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--burst", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
