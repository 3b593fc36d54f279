"""RemoteReranker over real sockets: event loops, threads, deadlines, files and proxies."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from serving.fake_engine import FakeEngine
from serving.live import live_server

from bge_rerank_integrations import DeadlineError, RemoteReranker

pytestmark = pytest.mark.enable_socket


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that gives each connection to ``answer``, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                answer(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live_server(FakeEngine()) as url:
        yield url


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files of Linux")
def test_a_hundred_event_loops_use_one_connection(url: str) -> None:
    with RemoteReranker(url) as reranker:
        reranker.rerank("q", ["a", "b"])
        before = open_files()
        for _ in range(100):
            asyncio.run(reranker.arerank("q", ["a", "b"]))
        assert open_files() <= before + 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files of Linux")
def test_a_reranker_that_nobody_closed_leaves_no_connection(url: str) -> None:
    RemoteReranker(url).rerank("q", ["a"])
    before = open_files()
    for _ in range(20):
        RemoteReranker(url).rerank("q", ["a"])
    gc.collect()
    deadline = time.monotonic() + 10
    # its end and the server's are files of this process
    while open_files() > before + 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_files() <= before + 4


def drip(parts: bytes, pause_s: float) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        while True:
            connection.sendall(parts)
            time.sleep(pause_s)

    return answer


@pytest.mark.parametrize(
    "parts",
    [b"H", b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 10, b""],
    ids=["bytes", "informational", "header", "silent"],
)
async def test_the_time_of_a_call_holds_however_slowly_the_answer_comes(parts: bytes) -> None:
    with listening(drip(parts, 0.05)) as url:
        reranker = RemoteReranker(url, timeout_s=0.25, max_attempts=1)
        for _ in range(2):
            start = time.monotonic()
            with pytest.raises(DeadlineError):
                reranker.rerank("q", ["a"])
            assert time.monotonic() - start < 1.2
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            await reranker.arerank("q", ["a"])
        assert time.monotonic() - start < 1.2
        await reranker.aclose()


def test_a_hundred_and_fifty_threads_share_a_reranker(url: str) -> None:
    with RemoteReranker(url, timeout_s=60) as reranker, ThreadPoolExecutor(150) as threads:
        start = time.monotonic()
        asked = [threads.submit(reranker.rerank, "q", ["q", "b"]) for _ in range(300)]
        assert all(len(call.result()) == 2 for call in asked)
    assert time.monotonic() - start < 30


async def test_a_cancelled_call_leaves_the_server(url: str) -> None:
    engine = FakeEngine(delay_s=30)
    with live_server(engine) as slow:
        async with RemoteReranker(slow) as reranker:
            call = asyncio.create_task(reranker.arerank("q", ["a"]))
            while not engine.waiting:
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            deadline = time.monotonic() + 10
            while not engine.cancelled and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
    assert engine.cancelled == 1


def test_this_machine_is_not_asked_through_a_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with RemoteReranker(url, timeout_s=10) as reranker:
        assert len(reranker.rerank("q", ["a", "b"])) == 2


@pytest.mark.parametrize("dialect", ["jina", "infinity", "cohere", "vllm", "nebul"])
def test_this_servers_limits_are_kept_by_splitting(url: str, dialect: str) -> None:
    with RemoteReranker(url, dialect, timeout_s=60) as reranker:
        assert len(reranker.rerank("q", ["a"] * 3_000)) == 3_000
        assert len(reranker.rerank("q", ["a " * 4_500] * 700)) == 700


def test_it_is_called_from_inside_an_event_loop_and_a_thread_at_once(url: str) -> None:
    reranker = RemoteReranker(url)

    async def both() -> None:
        # the sync call blocks this loop, not the one that asks
        assert len(reranker.rerank("q", ["a"])) == 1
        assert len(await reranker.arerank("q", ["a"])) == 1

    asyncio.run(both())
    reranker.close()
    # a closed one opens new connections
    assert len(reranker.rerank("q", ["a"])) == 1
    reranker.close()
