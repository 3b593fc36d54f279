"""Clients that hold connections without using them, on a real socket of this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from paths import ROOT
from processes import Process

from bge_rerank_integrations.serving.http_server import ServerLoop
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import FakeEngine
from serving.live import live_server
from serving.test_connections import BODY, connection, head, read_all, read_response

pytestmark = pytest.mark.enable_socket

PROBE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
REQUEST = head(f"Content-Length: {len(BODY)}") + BODY
# more than the buffers of both sockets
LARGE = json.dumps({"query": "q", "documents": ["a" * 100_000] * 150, "return_documents": True})
SETTINGS = ServerSettings(max_body_bytes=2**24, header_timeout_s=0.3, body_timeout_s=0.6)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live_server(FakeEngine(), SETTINGS) as url:
        yield url


def read_all_or_reset(opened: socket.socket) -> bytes:
    """What comes on a connection that may be closed without manners."""
    try:
        return read_all(opened)
    except ConnectionResetError:
        return b""


def is_answered(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def unread_response(url: str) -> Iterator[socket.socket]:
    """A connection whose client does not take its response."""
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        opened.settimeout(10)
        host, _, port = url.removeprefix("http://").partition(":")
        opened.connect((host, int(port)))
        opened.sendall(head(f"Content-Length: {len(LARGE)}") + LARGE.encode())
        yield opened


@pytest.mark.parametrize("start", [b"G", PROBE[:-2], REQUEST[:60]])
def test_a_head_that_does_not_come_is_refused_at_the_deadline(url: str, start: bytes) -> None:
    with connection(url) as opened:
        opened.sendall(start)
        started = time.monotonic()
        answer = read_all(opened)
    assert 0.2 < time.monotonic() - started < 5
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert answer.endswith(b"the head of a request must come within 0.3 seconds")


def test_a_head_that_drips_is_refused_at_the_deadline(url: str) -> None:
    with connection(url) as opened:
        opened.sendall(PROBE[:-2])
        started = time.monotonic()
        opened.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() - started < 5:
            opened.sendall(b"X: y\r\n")
            try:
                answer = opened.recv(65_536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_on_which_nothing_comes_is_closed(url: str) -> None:
    with connection(url) as opened:
        assert read_all(opened) == b""


def test_an_idle_connection_outlives_the_deadline_of_a_head(url: str) -> None:
    with connection(url) as opened:
        for _ in range(2):
            opened.sendall(REQUEST)
            assert read_response(opened).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.1)
        time.sleep(0.4)
        opened.sendall(REQUEST + PROBE[:-2])
        assert read_response(opened).startswith(b"HTTP/1.1 200 ")
        # the head of the next request began with the one before
        assert read_all(opened).startswith(b"HTTP/1.1 408 ")


def test_a_response_that_is_not_taken_is_dropped_at_the_deadline(url: str) -> None:
    with unread_response(url) as opened:
        # the deadline of the body comes first, in the worst case
        time.sleep(2 * SETTINGS.body_timeout_s + 0.5)
        with pytest.raises((AssertionError, ConnectionResetError), match=r"closed|reset"):
            read_response(opened)


def test_a_connection_outlives_a_large_response_that_was_taken(url: str) -> None:
    with connection(url) as opened:
        opened.sendall(head(f"Content-Length: {len(LARGE)}") + LARGE.encode())
        assert len(read_response(opened)) > len(LARGE)
        # beyond the deadline
        time.sleep(SETTINGS.body_timeout_s + 0.1)
        opened.sendall(REQUEST)
        assert read_response(opened).startswith(b"HTTP/1.1 200 ")


def test_beyond_the_bound_only_probes_are_answered() -> None:
    settings = ServerSettings(max_connections=2, header_timeout_s=5)
    with ExitStack() as opened:
        url = opened.enter_context(live_server(FakeEngine(), settings))
        held = [opened.enter_context(connection(url)) for _ in range(2)]
        for it in held:
            it.sendall(PROBE[:-2])
        # answered once, so that the server has seen those above
        answers = {}
        for name, request in (("request", REQUEST), ("probe", PROBE)):
            with connection(url) as extra:
                extra.sendall(request)
                answers[name] = read_all(extra)
        assert answers["request"].startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answers["request"].lower()
        assert b"the server has no connection to spare" in answers["request"]
        assert answers["probe"].startswith(b"HTTP/1.1 200 ")
        assert all(b"\r\nconnection: close\r\n" in it.lower() for it in answers.values())
        # those within the bound go on
        held[0].sendall(b"\r\n")
        assert read_response(held[0]).startswith(b"HTTP/1.1 200 ")


def test_a_new_connection_replaces_the_one_that_was_idle_for_longest() -> None:
    with ExitStack() as opened:
        url = opened.enter_context(live_server(FakeEngine(), ServerSettings(max_connections=2)))
        first, second, third = (opened.enter_context(connection(url)) for _ in range(3))
        for it in (second, first):
            it.sendall(REQUEST)
            assert read_response(it).startswith(b"HTTP/1.1 200 ")
        third.sendall(REQUEST)
        # refused, as the others were not idle when it came; until it is closed, it counts
        assert b"\r\nconnection: close\r\n" in read_all(third).lower()
        fourth = opened.enter_context(connection(url))
        fourth.sendall(REQUEST)
        assert read_response(fourth).startswith(b"HTTP/1.1 200 ")
        assert read_all(second) == b""
        first.sendall(REQUEST)
        assert read_response(first).startswith(b"HTTP/1.1 200 ")


def test_connections_far_beyond_the_bound_are_closed_at_once() -> None:
    settings = ServerSettings(max_connections=1, header_timeout_s=5)
    with ExitStack() as opened:
        url = opened.enter_context(live_server(FakeEngine(), settings))
        first, *others = (opened.enter_context(connection(url)) for _ in range(101))
        for each in (first, *others):
            each.sendall(PROBE[:-2])
        # answered only after the others' bytes were read, and never idle
        for _ in range(3):
            first.sendall(b"\r\n" + PROBE[:-2])
            read_response(first)
        last = opened.enter_context(connection(url))
        last.settimeout(0.9)
        assert read_all_or_reset(last) == b""


def test_a_silent_connection_beyond_the_bound_makes_room_for_a_probe() -> None:
    settings = ServerSettings(max_connections=1, header_timeout_s=5)
    with ExitStack() as opened:
        url = opened.enter_context(live_server(FakeEngine(), settings))
        silent = [opened.enter_context(connection(url)) for _ in range(101)]
        probe = opened.enter_context(connection(url))
        probe.sendall(PROBE)
        assert read_response(probe).startswith(b"HTTP/1.1 200 ")
        silent[1].settimeout(0.9)
        assert read_all(silent[1]) == b""


def test_silent_connections_beyond_the_bound_are_kept_while_there_is_room() -> None:
    settings = ServerSettings(max_connections=1, header_timeout_s=5)
    with ExitStack() as opened:
        url = opened.enter_context(live_server(FakeEngine(), settings))
        _, early, late = (opened.enter_context(connection(url)) for _ in range(3))
        for it in (late, early):
            it.sendall(PROBE)
            assert read_response(it).startswith(b"HTTP/1.1 200 ")


def test_bodies_of_all_requests_together_are_bounded() -> None:
    settings = ServerSettings(max_total_body_bytes=100_000, body_timeout_s=1)
    padded = BODY + b" " * 59_000
    with live_server(FakeEngine(), settings) as url, connection(url) as stalled:
        stalled.sendall(head("Content-Length: 60000") + b" " * 59_000)
        headers = {"Content-Type": "application/json"}
        answers = []
        while not answers or answers[-1].status_code != 503:
            answers.append(httpx.post(f"{url}/rerank", content=padded, headers=headers))
            assert len(answers) < 50
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].json()["detail"] == "the server holds too many other requests"
        assert httpx.post(f"{url}/rerank", content=BODY, headers=headers).status_code == 200
        assert read_all(stalled).startswith(b"HTTP/1.1 408 ")
        for _ in range(3):
            answer = httpx.post(f"{url}/rerank", content=padded, headers=headers)
            assert answer.status_code == 200


PROGRAM = """
import sys, time
{first}
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.http_server import make_server
from bge_rerank_integrations.serving.settings import ServerSettings

settings = ServerSettings(max_body_bytes=2**24, timeout_s=2)
app = create_app({engine}, settings)
make_server(app, settings, port=int(sys.argv[1])).run()
"""
ANSWERS_LATE = "__import__('serving.fake_engine', fromlist=['']).FakeEngine(delay_s=0.6)"
LOADS_FOR_EVER = "lambda: time.sleep(60)"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server_process(engine: str, first: str = "") -> Iterator[tuple[str, Process]]:
    """A server in a process of its own, and its URL.

    :param first: what its program does first.
    """
    root = ROOT
    paths = os.pathsep.join([str(root), str(root / "tests")])
    port = free_port()
    program = PROGRAM.format(engine=engine, first=first)
    process = Process(program, str(port), environment=os.environ | {"PYTHONPATH": paths})
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
        yield url, process
    finally:
        process.end()


def test_a_signal_ends_the_server_within_its_grace_whatever_clients_do() -> None:
    with server_process(ANSWERS_LATE) as (url, process), ExitStack() as opened:
        idle, half, stalled, asking = (opened.enter_context(connection(url)) for _ in range(4))
        opened.enter_context(unread_response(url))
        idle.sendall(PROBE)
        read_response(idle)
        half.sendall(PROBE[:-2])
        stalled.sendall(head("Content-Length: 1000") + b" ")
        # the response that nobody takes is there by now
        time.sleep(0.8)
        asking.sendall(REQUEST)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert read_response(asking).startswith(b"HTTP/1.1 200 ")
        assert read_all(idle) == b""
        process.wait(10)
        # the grace is timeout_s; what else a process does at its end takes its own time
        assert time.monotonic() - started < 2 + 3


def test_when_files_are_short_probes_are_answered_and_the_log_stays_short() -> None:
    pytest.importorskip("resource")
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))"
    with server_process(ANSWERS_LATE, few) as (url, process), ExitStack() as opened:
        for _ in range(600):
            silent = opened.enter_context(socket.socket())
            silent.setblocking(False)
            silent.connect_ex(("127.0.0.1", int(url.rpartition(":")[2])))
        # an orchestrator asks three times before it gives up
        assert any(is_answered(f"{url}/health") for _ in range(3))
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        log = process.stderr.read()
    assert "this process may open 400 files" in log
    assert len(log.splitlines()) < 50


def test_repeated_errors_of_the_loop_are_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = ServerLoop({})
    try:
        for _ in range(1_000):
            loop.call_exception_handler({"message": "socket.accept() out of system resource"})
        loop.call_exception_handler({"message": "another one"})
    finally:
        loop.close()
    assert caplog.messages == ["socket.accept() out of system resource", "another one"]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_while_a_model_loads(sent: signal.Signals) -> None:
    if signal.getsignal(sent) is signal.SIG_IGN:
        pytest.skip("started in the background: the server ignores the signal too")
    with server_process(LOADS_FOR_EVER) as (url, process):
        assert httpx.get(f"{url}/ready").status_code == 503
        process.send_signal(sent)
        assert process.wait(5) == -sent
