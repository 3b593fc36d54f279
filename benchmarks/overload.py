"""Five times the requests that a server can answer, with and without a bound on their wait.

::

    python -m benchmarks.overload --machine "2-core AMD EPYC"
    python -m benchmarks.overload --paced --machine "2-core AMD EPYC, busy with other programs"

The server has one core, the clients another. They come at random times and give up after 10
seconds. Rounds measure the capacity with a few clients who wait for their answers, then overload a
server without the bound and one with it. Runs on Linux (it pins processes, and reads ``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from benchmarks.capacity_load import Texts
from benchmarks.capacity_servers import Server, start
from benchmarks.machine import describe_machine

SERVER_CORE, CLIENT_CORE = 0, 1
# together they keep the server busy, and each is answered within the target
CLOSED_LOOP_CLIENTS = 2
OVERLOAD = 5.0
# 16 pairs in 0.44 seconds: about what the built-in model does on one core
PACE = ("--pair-s", "0.025", "--pass-pairs", "16")
PATIENCE_S = 10.0


@dataclass
class Outcome:
    """What became of requests.

    :param answered: seconds of those that were answered.
    :param refused: seconds of those that got 429.
    :param retry_after: what those were told, in seconds.
    :param given_up: requests whose clients waited no longer.
    :param wall_s: from the first request to the end of the last.
    :param cpu_s: that the server's process took for them.
    """

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    retry_after: list[int] = field(default_factory=list)
    given_up: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def within(self, target_s: float) -> int:
        """Requests answered within the target."""
        return sum(latency <= target_s for latency in self.answered)


class Clients:
    """Sends requests to one server.

    :param documents: in each request.
    """

    def __init__(self, server: Server, documents: int, seed: int) -> None:
        self._server = server
        self._documents = documents
        self._texts = Texts(seed)
        self._chance = random.Random(seed)
        self._outcome = Outcome()

    def closed_loop(self, seconds: float) -> Outcome:
        """A few clients, each with one request at a time."""

        async def client(http: httpx.AsyncClient, end: float) -> None:
            while time.perf_counter() < end:
                await self.request(http, patience_s=60.0)

        async def run(http: httpx.AsyncClient) -> None:
            end = time.perf_counter() + seconds
            await asyncio.gather(*(client(http, end) for _ in range(CLOSED_LOOP_CLIENTS)))

        return self.measure(run)

    def open_loop(self, per_second: float, seconds: float) -> Outcome:
        """Requests at random times, whatever became of those before them."""

        async def run(http: httpx.AsyncClient) -> None:
            requests = []
            next_at = start = time.perf_counter()
            while next_at < start + seconds:
                await asyncio.sleep(max(next_at - time.perf_counter(), 0))
                requests.append(asyncio.create_task(self.request(http, PATIENCE_S)))
                next_at += self._chance.expovariate(per_second)
            await asyncio.gather(*requests)

        return self.measure(run)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._server.url

    def measure(self, run: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> Outcome:
        """What becomes of the requests that a function sends."""

        async def main() -> None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            async with httpx.AsyncClient(limits=limits, timeout=None) as http:
                await run(http)

        self._outcome = outcome = Outcome()
        cpu, began = _cpu_s(self._server), time.perf_counter()
        asyncio.run(main())
        outcome.wall_s = time.perf_counter() - began
        outcome.cpu_s = _cpu_s(self._server) - cpu
        return outcome

    async def request(self, http: httpx.AsyncClient, patience_s: float) -> None:
        """Send a request, and note what became of it."""
        query, documents = self._texts.request(self._documents)
        body = {"query": query, "documents": documents}
        began = time.perf_counter()
        try:
            response = await asyncio.wait_for(
                http.post(f"{self._server.url}/rerank", json=body), patience_s
            )
        except asyncio.TimeoutError:
            self._outcome.given_up += 1
            return
        seconds = time.perf_counter() - began
        if response.status_code == 429:
            self._outcome.refused.append(seconds)
            self._outcome.retry_after.append(int(response.headers["retry-after"]))
            return
        response.raise_for_status()
        self._outcome.answered.append(seconds)


def main() -> None:
    """Run the rounds, print the table and write the figures."""
    options = _options()
    os.sched_setaffinity(0, {CLIENT_CORE})
    model, pace = (None, PACE) if options.paced else (options.model, ())
    bounds = {"without": "none", "with": str(options.target_s)}
    rounds: list[dict[str, dict[str, float]]] = []
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                start(
                    model,
                    max_queued_pairs=100_000,
                    timeout_s=60.0,
                    core=SERVER_CORE,
                    more=("--max-wait-s", bound, *pace),
                )
            )
            for name, bound in bounds.items()
        }
        clients = {
            name: Clients(server, options.documents, seed)
            for seed, (name, server) in enumerate(servers.items())
        }
        clients["without"].closed_loop(options.seconds / 3)
        for _ in range(options.rounds):
            rounds.append(_round(clients, options.seconds, options.target_s))
            print(json.dumps(rounds[-1]), flush=True)
    medians = {
        name: {key: median(each[name][key] for each in rounds) for key in rounds[0][name]}
        for name in rounds[0]
    }
    print(_table(medians))
    figures = {
        "model": "none, paced" if options.paced else Path(options.model).name,
        "documents": options.documents,
        "overload": OVERLOAD,
        "target_s": options.target_s,
        "patience_s": PATIENCE_S,
        "medians": medians,
        "rounds": rounds,
        "machine": {"name": options.machine, **describe_machine()},
    }
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _round(
    clients: dict[str, Clients], seconds: float, target_s: float
) -> dict[str, dict[str, float]]:
    """Capacity, then both servers overloaded, then the capacity again: the machine is shared."""
    before = clients["without"].closed_loop(seconds / 2)
    overloaded = {}
    per_second = len(before.answered) / before.wall_s
    for name, each in clients.items():
        overloaded[name] = each.open_loop(OVERLOAD * per_second, seconds)
    after = clients["without"].closed_loop(seconds / 2)
    answered = len(before.answered) + len(after.answered)
    capacity = answered / (before.wall_s + after.wall_s)
    figures = {
        name: {
            **_figures(outcome, target_s),
            "share_of_capacity": outcome.within(target_s) / outcome.wall_s / capacity,
        }
        for name, outcome in overloaded.items()
    }
    return {"capacity": {"requests_per_s": capacity}} | figures


def _figures(outcome: Outcome, target_s: float) -> dict[str, float]:
    return {
        "requests": len(outcome.answered) + len(outcome.refused) + outcome.given_up,
        "answered": len(outcome.answered),
        "answered_in_target": outcome.within(target_s),
        "refused": len(outcome.refused),
        "given_up": outcome.given_up,
        "answered_p50_s": percentile(outcome.answered, 50),
        "answered_p95_s": percentile(outcome.answered, 95),
        "refused_p50_ms": 1e3 * percentile(outcome.refused, 50),
        "refused_p95_ms": 1e3 * percentile(outcome.refused, 95),
        "retry_after_p50_s": percentile(outcome.retry_after, 50),
        "server_cpu_s": outcome.cpu_s,
        "wall_s": outcome.wall_s,
    }


def percentile(values: list[float] | list[int], percent: int) -> float:
    """A percentile of values; of fewer than two, the value or 0."""
    if len(values) < 2:
        return float(sum(values))
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _table(medians: dict[str, dict[str, float]]) -> str:
    lines = ["| | without the bound | with it |", "|---|---|---|"]
    for key in medians["with"]:
        cells = (f"{medians[name][key]:.2f}" for name in ("without", "with"))
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cpu_s(server: Server) -> float:
    """CPU seconds that a server's process has taken so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument(
        "--paced",
        action="store_true",
        help="no model: a device that only takes its time, for machines that are busy otherwise",
    )
    parser.add_argument("--documents", type=int, default=20, help="in a request")
    parser.add_argument("--target-s", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload, in each round")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
