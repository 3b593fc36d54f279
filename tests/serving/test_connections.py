"""Connections of clients that break the rules, on a real socket of this machine."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import pytest
from processes import Process

from bge_rerank_integrations.serving.connections import Connection
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import FakeEngine
from serving.live import live_server
from serving.test_live import MAIN, url_of

pytestmark = pytest.mark.enable_socket

BODY = json.dumps({"query": "q", "documents": ["a"]}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FakeEngine, str]]:
    engine = FakeEngine()
    with live_server(engine) as url:
        yield engine, url


@pytest.fixture
def engine(server: tuple[FakeEngine, str]) -> FakeEngine:
    """The engine of the server with default settings, as new."""
    vars(server[0]).update(vars(FakeEngine()))
    return server[0]


@pytest.fixture
def url(server: tuple[FakeEngine, str], engine: FakeEngine) -> str:
    return server[1]


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        yield opened


def head(*headers: str) -> bytes:
    lines = ("POST /rerank HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_all(opened: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    return b"".join(iter(lambda: opened.recv(65_536), b""))


def read_response(opened: socket.socket) -> bytes:
    """One response of a connection that stays open."""

    def receive() -> bytes:
        block = opened.recv(2**20)
        assert block, "the connection was closed"
        return block

    received = receive()
    while b"\r\n\r\n" not in received:
        received += receive()
    header, _, body = received.partition(b"\r\n\r\n")
    length = int(header.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += receive()
    return header + b"\r\n\r\n" + body


@pytest.mark.parametrize("length", [50_000, 5_000_000])
def test_a_body_that_is_too_large_is_refused_and_its_connection_closed(length: int) -> None:
    with (
        live_server(FakeEngine(), ServerSettings(max_body_bytes=1_000)) as url,
        connection(url) as opened,
    ):
        opened.sendall(head(f"Content-Length: {length}") + b" " * length)
        answer = read_all(opened)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert b"a request may hold 1000 bytes" in answer


def test_a_client_that_goes_on_sending_after_a_refusal_is_dropped() -> None:
    with (
        live_server(FakeEngine(), ServerSettings(max_body_bytes=1_000)) as url,
        connection(url) as opened,
    ):
        started = time.monotonic()
        opened.sendall(head("Content-Length: 5000000") + b" ")
        assert read_all(opened).startswith(b"HTTP/1.1 413 ")
    assert 1 < time.monotonic() - started < 5


def test_a_body_that_drips_is_refused_at_the_deadline() -> None:
    engine = FakeEngine()
    with (
        live_server(engine, ServerSettings(body_timeout_s=0.5)) as url,
        connection(url) as opened,
    ):
        started = time.monotonic()
        opened.sendall(head("Content-Length: 1000"))
        while not select.select([opened], [], [], 0.1)[0]:
            assert time.monotonic() - started < 5
            opened.sendall(b" ")
        assert time.monotonic() - started > 0.4
        answer = read_all(opened)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body must come within 0.5 seconds" in answer
    assert not engine.calls


def test_an_answer_may_take_longer_than_its_body_did() -> None:
    engine = FakeEngine(delay_s=0.5)
    with live_server(engine, ServerSettings(body_timeout_s=0.2)) as url:
        client = HTTPConnection(url.removeprefix("http://"))
        client.request("POST", "/rerank", BODY, {"Content-Type": "application/json"})
        assert client.getresponse().status == 200
        client.close()


def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(
    engine: FakeEngine, url: str
) -> None:
    encoded = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    with connection(url) as opened:
        headers = head(f"Content-Length: {len(encoded)}", "Transfer-Encoding: chunked")
        opened.sendall(headers + encoded)
        answer = read_all(opened)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"either Content-Length or Transfer-Encoding" in answer
    assert not engine.calls


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "nonsense"])
def test_an_encoding_that_is_not_known_is_refused(encoding: str, url: str) -> None:
    with connection(url) as opened:
        headers = head(f"Content-Length: {len(BODY)}", f"Content-Encoding: {encoding}")
        opened.sendall(headers + BODY)
        answer = read_all(opened)
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"without Content-Encoding" in answer


def chunked(body: bytes, size: int) -> bytes:
    """A request whose body comes in chunks of one size."""
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    encoded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head("Transfer-Encoding: chunked") + encoded + b"0\r\n\r\n"


def test_a_body_in_many_small_chunks_is_refused(engine: FakeEngine, url: str) -> None:
    with connection(url) as opened:
        opened.sendall(chunked(BODY + b" " * 1_100, 1))
        answer = read_all(opened)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert answer.endswith(b"a body may come in 1000 chunks, and in one more for each 16 bytes")
    assert not engine.calls


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_over_the_limit_is_refused(url: str, end: bytes) -> None:
    with connection(url) as opened:
        opened.sendall(head(f"X: {'a' * 66_000}")[:-4] + end)
        answer = read_all(opened)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"the head of a request may hold 65536 bytes")


def test_a_head_below_the_limit_and_a_body_in_the_same_packets_are_read(url: str) -> None:
    with connection(url) as opened:
        padded = BODY + b" " * 100_000
        opened.sendall(head(f"X: {'a' * 60_000}", f"Content-Length: {len(padded)}") + padded)
        assert read_response(opened).startswith(b"HTTP/1.1 200 ")


def test_few_small_chunks_and_many_larger_ones_are_read(url: str) -> None:
    requests = [chunked(BODY + b" " * 900, 1), chunked(BODY + b" " * 40_000, 16)]
    with connection(url) as opened:
        # the second time, the chunks of the first do not count
        for request in (*requests, *requests):
            opened.sendall(request)
            assert read_response(opened).startswith(b"HTTP/1.1 200 ")


def test_many_chunks_that_come_at_once_are_read_in_pieces(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = []
    received = Connection.data_received

    def counted(self: Connection, data: bytes) -> None:
        pieces.append(len(data))
        received(self, data)

    monkeypatch.setattr(Connection, "data_received", counted)
    request = chunked(BODY + b" " * 2_000_000, 16)
    probes = 0
    with ExitStack() as stack:
        opened, other = (stack.enter_context(connection(url)) for _ in range(2))
        sending = threading.Thread(target=opened.sendall, args=(request,))
        sending.start()
        while not select.select([opened], [], [], 0)[0]:
            other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_response(other).startswith(b"HTTP/1.1 200 ")
            probes += 1
        sending.join()
        assert read_response(opened).startswith(b"HTTP/1.1 200 ")
    # the others are answered between pieces of 8 kB; asyncio by itself reads up to 256 kB at once
    assert max(pieces) <= 8_192
    assert len(pieces) > 300
    assert probes > 0


def test_a_malformed_rest_of_a_refused_request_ends_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        live_server(FakeEngine(), ServerSettings(max_body_bytes=1_000)) as url,
        connection(url) as opened,
    ):
        opened.sendall(head("Transfer-Encoding: chunked") + b"800\r\n" + b" " * 0x800)
        answer = opened.recv(65_536)
        opened.sendall(b"no chunk\r\n")
        answer += read_all(opened)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_connection_is_kept_for_the_next_request(url: str) -> None:
    headers = {"Content-Type": "application/json"}
    client = HTTPConnection(url.removeprefix("http://"))
    client.connect()
    opened = client.sock
    for encoding in ({}, {"Content-Encoding": "identity"}):
        client.request("POST", "/rerank", BODY, headers | encoding)
        answer = client.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, None)
        answer.read()
        assert client.sock is opened
    client.close()


SLOW_LOG = """
import sys, time
class Slow:
    def write(self, text):
        time.sleep(0.05)
        return sys.__stderr__.write(text)
    def flush(self):
        sys.__stderr__.flush()
sys.stderr = Slow()
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_last_line_of_its_log(
    number: signal.Signals, xlmr: str
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("started under nohup: the server ignores the signal too")
    process = Process(
        SLOW_LOG + MAIN, "serve", "--port", "0", "--model", xlmr, "--device", "cpu",
        environment=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    try:
        url_of(process)
        process.send_signal(number)
        process.wait(20)
        assert "Application shutdown complete" in process.stderr.read()
    finally:
        process.end()
