"""A server under load: a burst, more than it can answer, small callers beside greedy ones.

::

    python -m benchmarks.load --machine "2-core AMD EPYC" --output benchmarks/results/load.json
    python -m benchmarks.load --paced --machine "2-core AMD EPYC, busy with other programs"

The server has one core and its default ``--max-wait-s 5``, the clients another core. Requests have
20 documents. The clients are one process that writes prepared bytes to sockets and reads statuses.
Runs on Linux (it pins processes, and reads ``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.capacity_load import Texts
from benchmarks.capacity_servers import Server, start
from benchmarks.machine import describe_machine
from benchmarks.overload import CLIENT_CORE, PACE, SERVER_CORE, Outcome, percentile

TARGET_S = 5.0
PATIENCE_S = 60.0
AIM_OF_SHARE = 0.95
DOCUMENTS = 20
CLOSED_LOOP_CLIENTS = 2
GREEDY_CLIENTS, GREEDY_DOCUMENTS = 8, 100
SMALL_EVERY_S = 0.5
_PREPARED = 500


class Connection(asyncio.Protocol):
    """A connection that writes prepared requests, one at a time, and reads statuses."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._answered: asyncio.Future[bytes] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended or self._answered is None:
            return
        length = head.lower().partition(b"\ncontent-length: ")[2].split(b"\r")[0]
        if len(body) >= int(length):
            self._received = b""
            if not self._answered.done():
                self._answered.set_result(head)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed without an answer"))

    async def ask(self, request: bytes) -> bytes:
        """Send a request, and return the head of its response."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answered, PATIENCE_S)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class Clients:
    """Sends requests to one server, each on a connection that no other request uses."""

    def __init__(self, server: Server, seed: int = 0) -> None:
        self._server = server
        self._texts = Texts(seed)
        self._chance = random.Random(seed)
        self._outcome = Outcome()
        self._idle: list[Connection] = []
        self._requests = [self.prepared(DOCUMENTS) for _ in range(_PREPARED)]

    def prepared(self, documents: int) -> bytes:
        """The bytes of a request."""
        query, texts = self._texts.request(documents)
        body = json.dumps({"query": query, "documents": texts}).encode()
        head = (
            f"POST /rerank HTTP/1.1\r\nHost: {urlsplit(self._server.url).netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def connect(self) -> Connection:
        """An idle connection, or a new one."""
        if self._idle:
            return self._idle.pop()
        address = urlsplit(self._server.url)
        loop = asyncio.get_running_loop()
        _, opened = await loop.create_connection(Connection, address.hostname, address.port)
        return opened

    async def request(self, request: bytes | None = None) -> None:
        """Send a request, and note what became of it."""
        connection = await self.connect()
        began = time.perf_counter()
        try:
            head = await connection.ask(request or self._chance.choice(self._requests))
        except (asyncio.TimeoutError, ConnectionError):
            self._outcome.given_up += 1
            connection.close()
            return
        seconds = time.perf_counter() - began
        self._idle.append(connection)
        if head.startswith(b"HTTP/1.1 429 "):
            self._outcome.refused.append(seconds)
        elif head.startswith(b"HTTP/1.1 200 "):
            self._outcome.answered.append(seconds)
        else:
            raise ValueError(f"an answer that nobody expected: {head!r}")

    def closed_loop(self, seconds: float) -> Outcome:
        """A few clients, each with one request at a time."""

        async def client(end: float) -> None:
            while time.perf_counter() < end:
                await self.request()

        async def run() -> None:
            end = time.perf_counter() + seconds
            await asyncio.gather(*(client(end) for _ in range(CLOSED_LOOP_CLIENTS)))

        return self.measure(run)

    def open_loop(self, per_second: float, seconds: float) -> Outcome:
        """Requests at random times, whatever became of those before them."""

        async def run() -> None:
            requests = []
            next_at = began = time.perf_counter()
            while next_at < began + seconds:
                await asyncio.sleep(max(next_at - time.perf_counter(), 0))
                requests.append(asyncio.create_task(self.request()))
                next_at += self._chance.expovariate(per_second)
            await asyncio.gather(*requests)

        return self.measure(run)

    def burst(self, count: int) -> Outcome:
        """So many requests at the same time, each on a connection that is open already."""

        async def run() -> None:
            self._idle = [await self.connect() for _ in range(count)]
            await asyncio.sleep(1)
            await asyncio.gather(*(self.request() for _ in range(count)))

        return self.measure(run)

    def beside_greedy_ones(self, seconds: float) -> Outcome:
        """Requests with one document, while others send large ones in a loop."""

        async def greedy() -> None:
            large = [self.prepared(GREEDY_DOCUMENTS) for _ in range(10)]
            connection = await self.connect()
            while True:
                head = (await connection.ask(self._chance.choice(large))).lower()
                await asyncio.sleep(float(head.partition(b"\nretry-after: ")[2].split()[0] or 0))

        async def run() -> None:
            others = [asyncio.create_task(greedy()) for _ in range(GREEDY_CLIENTS)]
            await asyncio.sleep(2)
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                await self.request(self.prepared(1))
                await asyncio.sleep(SMALL_EVERY_S)
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        return self.measure(run)

    def measure(self, run: Callable[[], Coroutine[Any, Any, None]]) -> Outcome:
        """What becomes of the requests that a function sends."""

        async def main() -> None:
            await run()
            for connection in self._idle:
                connection.close()
            self._idle.clear()

        self._outcome = outcome = Outcome()
        cpu, began = _loop_cpu_s(self._server), time.perf_counter()
        asyncio.run(main())
        outcome.wall_s = time.perf_counter() - began
        outcome.cpu_s = _loop_cpu_s(self._server) - cpu
        return outcome


def _loop_cpu_s(server: Server) -> float:
    """CPU seconds of the server's event loop, which is its process's first thread."""
    text = Path(f"/proc/{server.pid}/task/{server.pid}/schedstat").read_text()
    return int(text.split()[0]) / 1e9


def _figures(outcome: Outcome, capacity: float) -> dict[str, float]:
    requests = len(outcome.answered) + len(outcome.refused) + outcome.given_up
    return {
        "requests": requests,
        "answered_in_target": outcome.within(TARGET_S),
        "answered_late": len(outcome.answered) - outcome.within(TARGET_S),
        "hung": outcome.given_up,
        "refused": len(outcome.refused),
        "answered_longest_s": max(outcome.answered, default=0.0),
        "refused_p50_ms": 1e3 * percentile(outcome.refused, 50),
        "refused_p95_ms": 1e3 * percentile(outcome.refused, 95),
        "refused_longest_ms": 1e3 * max(outcome.refused, default=0.0),
        "loop_cpu_ms_a_request": 1e3 * outcome.cpu_s / requests,
        "share_of_capacity": outcome.within(TARGET_S) / outcome.wall_s / capacity,
    }


def main() -> None:
    """Measure, print and write the figures."""
    options = _options()
    os.sched_setaffinity(0, {CLIENT_CORE})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (4_096, hard))
    more = ("--max-wait-s", str(TARGET_S), "--max-connections", str(3 * options.burst))
    model, pace = (None, PACE) if options.paced else (options.model, ())
    figures: dict[str, object] = {}
    with start(
        model, max_queued_pairs=100_000, timeout_s=60.0, core=SERVER_CORE, more=(*more, *pace)
    ) as server:
        clients = Clients(server)
        clients.closed_loop(options.seconds / 4)
        load_before = os.getloadavg()[0]
        before = clients.closed_loop(options.seconds / 2)
        loads = {times: _load(clients, times, before, options.seconds) for times in (5, 20)}
        after = clients.closed_loop(options.seconds / 2)
        capacity = (len(before.answered) + len(after.answered)) / (before.wall_s + after.wall_s)
        figures["capacity_requests_per_s"] = capacity
        for times, outcome in loads.items():
            figures[f"{times} times the capacity"] = _figures(outcome, capacity)
        figures["burst"] = _figures(clients.burst(options.burst), capacity)
        small = clients.beside_greedy_ones(options.seconds / 2).answered
        figures["small beside greedy"] = {
            "requests": len(small),
            "greedy_clients": GREEDY_CLIENTS,
            "greedy_documents": GREEDY_DOCUMENTS,
            "p50_s": percentile(small, 50),
            "longest_s": max(small),
        }
    figures["model"] = "none, paced" if options.paced else options.model
    figures["aim_of_share"] = AIM_OF_SHARE
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
    parser.add_argument("--paced", action="store_true", help="no model: a device that takes time")
    parser.add_argument("--burst", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
