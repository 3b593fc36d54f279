"""Real servers in processes of their own: a model's, or one that only takes its time.

::

    python -m benchmarks.capacity_servers --port 8788    # the second kind, alone
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.capacity import Replica
from benchmarks.machine import memory_mib
from benchmarks.sleeping import SleepingScorer, sleeping_engine
from bge_rerank_integrations.settings import read_setting

PACED = Replica(pass_s=0.04, pair_s=0.001, pass_pairs=64)
_START_S = 120.0
_SERVE = "from bge_rerank_integrations.cli import main; main()"


@dataclass(frozen=True)
class Server:
    """A server that is ready.

    :param pid: its process.
    """

    url: str
    pid: int

    def memory_mib(self) -> dict[str, int]:
        """Memory that no file backs now, and the most that was resident (Linux)."""
        kinds = {"anonymous": "RssAnon", "peak": "VmHWM"}
        return {name: int(memory_mib(kind, self.pid)) for name, kind in kinds.items()}


@contextmanager
def start(
    model: str | None,
    *,
    max_queued_pairs: int,
    timeout_s: float,
    core: int | None = None,
    more: Sequence[str] = (),
) -> Iterator[Server]:
    """Start a server and end it.

    :param model: what it serves; None means that it only takes its time, as ``PACED`` does.
    :param core: the only core that it may use.
    :param more: other options of its command line.
    """
    port = _free_port()
    program = ["-c", _SERVE, "serve", "--model", model, "--log-level", "error"]
    options = ["--port", port, "--max-queued-pairs", max_queued_pairs, "--timeout-s", timeout_s]
    if model is None:
        program = ["-m", "benchmarks.capacity_servers"]
    threads = {} if core is None else {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *map(str, (*program, *options, *more))], env={**os.environ, **threads}
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        url = f"http://127.0.0.1:{port}"
        _wait(process, url)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def main() -> None:
    """Serve without a model until SIGTERM."""
    from bge_rerank_integrations.serving.app import create_app
    from bge_rerank_integrations.serving.http_server import make_server
    from bge_rerank_integrations.serving.settings import ServerSettings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-queued-pairs", type=int, default=100_000)
    parser.add_argument("--timeout-s", type=float, default=60.0)
    parser.add_argument("--pair-s", type=float, default=PACED.pair_s)
    parser.add_argument("--pass-pairs", type=int, default=PACED.pass_pairs)
    parser.add_argument("--max-wait-s", default="none")
    parser.add_argument("--max-connections", type=int, default=ServerSettings.max_connections)
    arguments = parser.parse_args()
    pace = Replica(PACED.pass_s, arguments.pair_s, arguments.pass_pairs)
    engine = sleeping_engine(
        SleepingScorer(pace.seconds),
        tokens=1,
        max_batch_tokens=pace.pass_pairs,
        max_queued_pairs=arguments.max_queued_pairs,
    )
    max_wait_s = read_setting("max_wait_s", arguments.max_wait_s)
    limits = ServerSettings(
        timeout_s=arguments.timeout_s, max_connections=arguments.max_connections
    )
    app = create_app(engine.with_options(max_wait_s=max_wait_s), limits)
    make_server(app, limits, port=arguments.port).run()
    engine.close()


if __name__ == "__main__":
    main()
