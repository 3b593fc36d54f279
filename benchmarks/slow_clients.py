"""Clients that are slow or hostile, and what the server's other clients notice of them.

::

    python -m benchmarks.slow_clients --machine "2-core AMD EPYC" --output OUTPUT

The server has one core, the clients another. While clients of one kind do their worst, ``/health``
is asked every 10 ms; a pause counts for all questions that would have been asked in it. Runs on
Linux (it pins processes, and reads ``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

import numpy as np

from benchmarks.capacity_servers import Server, start
from benchmarks.machine import describe_machine, memory_mib
from bge_rerank_integrations.serving.settings import ServerSettings

SERVER_CORE, CLIENT_CORE = 0, 1
PROBE_EVERY_S = 0.01
REUSED_CONNECTIONS, IDLE_S = 1_000, 6.0
# of each kind of bad clients when the server is told to end
WORST = ("half-sent heads", "stalled bodies", "responses not taken", "one-byte chunks")
SIZE = ServerSettings.max_body_bytes
HEAD = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMALL = b'{"query":"q","documents":["a"]}'


@dataclass(frozen=True)
class Kind:
    """Clients of one kind.

    :param clients: how many there are at a time.
    :param sent: what each sends on each connection.
    :param reads: whether it takes its response.
    """

    clients: int
    sent: bytes
    reads: bool = True


@dataclass
class Tally:
    """What became of the connections of one kind: answers by status, and seconds until closed."""

    answers: dict[str, int] = field(default_factory=dict)
    lived_s: list[float] = field(default_factory=list)

    def add(self, status: str, seconds: float) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1
        self.lived_s.append(seconds)


def _request(body: bytes, length: int | None = None) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % (length or len(body)) + body


def _filled(item: bytes, *, between: bytes = b",", inside: bytes = b'["a"],"x":[%s]') -> bytes:
    """A request of the maximum size, full of one item."""
    body = b'{"query":"q","documents":%s}' % inside
    items = item + (between + item) * ((SIZE - len(body)) // len(between + item) - 1)
    return _request(body % items)


KINDS = {
    "none": Kind(0, b""),
    "half-sent heads": Kind(500, HEAD),
    "stalled bodies": Kind(20, _request(SMALL[:-1] + b" " * (SIZE - len(SMALL)), SIZE)),
    "responses not taken": Kind(
        20, _request(SMALL[:-4] + b"a" * 190_000 + b'"],"return_documents":true}'), reads=False
    ),
    "wrong integers": Kind(4, _filled(b"1", inside=b"[%s]")),
    "nested unknown lists": Kind(4, _filled(b"[" * 150 + b"]" * 150)),
    "a million unknown keys": Kind(4, _filled(b'"":1', inside=b'["a"],%s')),
    "long numbers": Kind(4, _filled(b"1" * 4_000)),
    "escapes": Kind(4, _filled(rb"\u0041", between=b"", inside=b'["%s"]')),
    "one-byte chunks": Kind(
        4, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * SIZE + b"0\r\n\r\n"
    ),
}


def _misbehave(name: str, port: int, seconds: float, results: Connection) -> None:
    """In a process of its own: be the clients of one kind, and report."""
    # the probe comes first when both could run
    os.nice(10)
    results.send("ready")
    results.send(asyncio.run(_all_clients(KINDS[name], port, seconds)))


async def _all_clients(kind: Kind, port: int, seconds: float) -> Tally:
    tally, end = Tally(), time.monotonic() + seconds

    async def client() -> None:
        while (left := end - time.monotonic()) > 0:
            began = time.monotonic()
            try:
                status = await asyncio.wait_for(_connection(kind, port), left)
            except asyncio.TimeoutError:
                status = "still open"
            except ConnectionRefusedError:
                # the server has ended
                return
            tally.add(status, time.monotonic() - began)

    await asyncio.gather(*(client() for _ in range(kind.clients)))
    return tally


async def _connection(kind: Kind, port: int) -> str:
    """One connection, until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(kind.sent)
        if not kind.reads:
            writer.transport.pause_reading()
            await writer.wait_closed()
        while block := await reader.read(2**16):
            received += block
            if received.endswith(b"}"):
                # answered, and kept for another request
                break
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return received[9:12].decode() or "closed without an answer"


@contextmanager
def _bad_clients(name: str, server: Server, seconds: float) -> Iterator[Connection]:
    """Clients of one kind at work, for so many seconds."""
    results, theirs = get_context("spawn").Pipe(duplex=False)
    port = int(server.url.rpartition(":")[2])
    process = get_context("spawn").Process(
        target=_misbehave, args=(name, port, seconds, theirs), daemon=True
    )
    process.start()
    theirs.close()
    assert results.recv() == "ready"
    try:
        yield results
    finally:
        process.kill()
        process.join()


def _round(name: str, server: Server, seconds: float) -> dict[str, object]:
    """Ask ``/health`` while clients of one kind do their worst."""
    before = most = memory_mib("VmRSS", server.pid)
    latencies: list[float] = []
    with _bad_clients(name, server, seconds) as results:
        client = _Client(server)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            client.get("/health")
            waited = time.perf_counter() - began
            latencies += (waited - missed for missed in np.arange(0, waited, PROBE_EVERY_S))
            most = max(most, memory_mib("VmRSS", server.pid))
            time.sleep(PROBE_EVERY_S)
        client.close()
        tally: Tally = results.recv()
    percentiles = quantiles(latencies, n=100, method="inclusive")
    return {
        "health_p50_ms": round(1e3 * percentiles[49], 1),
        "health_p99_ms": round(1e3 * percentiles[98], 1),
        "health_max_ms": round(1e3 * max(latencies), 1),
        "memory_before_mib": round(before),
        "memory_added_mib": round(most - before),
        "connections": len(tally.lived_s),
        "longest_connection_s": round(max(tally.lived_s, default=0.0), 1),
        "answers": dict(sorted(tally.answers.items())),
    }


class _Client:
    """A connection of a client that follows the rules."""

    def __init__(self, server: Server) -> None:
        self._http = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        self._http.connect()
        self._socket = self._http.sock

    def get(self, path: str) -> None:
        self._http.request("GET", path)
        response = self._http.getresponse()
        response.read()
        if response.status != 200 or self._http.sock is not self._socket:
            raise HTTPException(f"{response.status}, or another connection")

    def close(self) -> None:
        self._http.close()


def _reuse(server: Server) -> dict[str, float]:
    """Requests on connections that were idle for longer than many servers keep theirs."""
    clients = []
    for _ in range(REUSED_CONNECTIONS):
        clients.append(_Client(server))
        clients[-1].get("/info")
    time.sleep(IDLE_S)
    failures = 0
    for client in clients:
        try:
            client.get("/info")
        except (HTTPException, OSError):
            failures += 1
        client.close()
    return {"connections": len(clients), "idle_s": IDLE_S, "failures": failures}


def _end(model: str) -> float:
    """Seconds from SIGTERM to the end of a server that has all kinds of slow clients."""
    with ExitStack() as stack:
        server = stack.enter_context(
            start(model, max_queued_pairs=100_000, timeout_s=60.0, core=SERVER_CORE)
        )
        for name in WORST:
            stack.enter_context(_bad_clients(name, server, 120.0))
        idle = _Client(server)
        idle.get("/health")
        time.sleep(5)
        os.kill(server.pid, signal.SIGTERM)
        began = time.perf_counter()
        while not _has_ended(server.pid):
            time.sleep(0.01)
        return time.perf_counter() - began


def _has_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def main() -> None:
    """Run all kinds, print the table and write the figures."""
    options = _options()
    os.sched_setaffinity(0, {CLIENT_CORE})
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (4_096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    load_before = os.getloadavg()[0]
    kinds = {}
    with start(options.model, max_queued_pairs=100_000, timeout_s=60.0, core=SERVER_CORE) as server:
        for name in KINDS:
            kinds[name] = _round(name, server, options.seconds)
            print(name, json.dumps(kinds[name]), flush=True)
        reused = _reuse(server)
    print(json.dumps(reused), flush=True)
    end_s = round(_end(options.model), 1)
    print(f"ended {end_s} s after SIGTERM")
    print(_table(kinds))
    figures = {
        "model": options.model,
        "seconds": options.seconds,
        "kinds": kinds,
        "reused": reused,
        "end_s": end_s,
        "load_before": round(load_before, 1),
        "machine": {"name": options.machine, **describe_machine()},
    }
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _table(kinds: dict[str, dict[str, object]]) -> str:
    keys = ("health_p50_ms", "health_p99_ms", "health_max_ms", "memory_added_mib")
    lines = [
        "| clients | `/health` p50, ms | p99, ms | longest, ms | memory added, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, row in kinds.items():
        clients = f"{KINDS[name].clients} × {name}" if KINDS[name].clients else name
        lines.append(f"| {clients} | {' | '.join(str(row[key]) for key in keys)} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seconds", type=float, default=25.0, help="for each kind of clients")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
