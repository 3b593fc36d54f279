"""Requests that are refused by their heads alone, with raw bytes on a real socket."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest

from bge_rerank_integrations import OverloadedError
from bge_rerank_integrations.serving import shedding
from bge_rerank_integrations.serving.connection_bounds import Connections
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.settings import CallOptions
from serving.fake_engine import FakeEngine
from serving.live import live_server
from serving.test_connections import connection, read_all, read_response
from serving.test_errors import BODIES

pytestmark = pytest.mark.enable_socket

PROBE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGER = json.dumps({"query": "q", "documents": ["a longer document"] * 9}).encode()
FULL = "the answer would take too long"
USUAL = "Host: localhost\r\nContent-Type: application/json"


def request(body: bytes, path: str = "/rerank", headers: str = USUAL) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


@pytest.fixture(autouse=True)
def _long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "_HOLDS_S", 60.0)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(OverloadedError(FULL, 2.1))


@pytest.fixture
def opened(engine: FakeEngine) -> Iterator[socket.socket]:
    """A connection to a server that has refused a request of the smaller size."""
    with live_server(engine) as url, connection(url) as opened:
        opened.sendall(request(json.dumps(BODIES["/rerank"]).encode()))
        assert read_response(opened).startswith(b"HTTP/1.1 429 ")
        assert len(engine.calls) == 1
        yield opened


def test_the_response_comes_before_the_body_and_the_connection_goes_on(
    engine: FakeEngine, opened: socket.socket
) -> None:
    sent = request(LARGER).replace(b"Content-Type", b"X-Request-ID: mine\r\nContent-Type")
    opened.sendall(sent[: -len(LARGER)])
    answer = read_response(opened)
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nretry-after: 3\r\n" in answer
    assert b"\r\nx-request-id: mine\r\n" in answer
    assert FULL.encode() in answer
    for part in (LARGER[:7], LARGER[7:] + PROBE):
        opened.sendall(part)
    assert read_response(opened).startswith(b"HTTP/1.1 200 ")
    opened.sendall(request(LARGER))
    assert read_response(opened).startswith(b"HTTP/1.1 429 ")
    assert len(engine.calls) == 1


def test_requests_in_one_piece_are_answered_in_their_order(
    engine: FakeEngine, opened: socket.socket
) -> None:
    opened.sendall(2 * request(LARGER) + PROBE + request(LARGER))
    answers = b""
    while answers.count(b"HTTP/1.1 ") < 4:
        answers += opened.recv(65_536)
    statuses = [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"429", b"429", b"200", b"429"]
    # the last one came together with a request that uvicorn had
    assert len(engine.calls) == 2


def test_a_smaller_request_asks_the_queue(engine: FakeEngine, opened: socket.socket) -> None:
    engine.error = None
    opened.sendall(request(json.dumps({"query": "q", "documents": ["a"]}).encode()))
    assert read_response(opened).startswith(b"HTTP/1.1 200 ")


def test_a_smaller_one_that_was_refused_later_counts_with_its_own_words(
    engine: FakeEngine,
) -> None:
    smaller = request(json.dumps(BODIES["/rerank"]).encode())
    with live_server(engine) as url, connection(url) as opened:
        for sent, retry_after, asked in (
            (request(LARGER), 3, 1),
            (request(LARGER), 3, 1),
            (smaller, 8, 2),
            (smaller, 8, 2),
            (request(LARGER, "/rerank?a=b"), 8, 2),
        ):
            opened.sendall(sent)
            answer = read_response(opened)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert f"\r\nretry-after: {retry_after}\r\n".encode() in answer
            assert len(engine.calls) == asked
            engine.error = OverloadedError("for longer", 7.5)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(LARGER, "/nowhere"), 404),
        (request(LARGER, headers="Host: localhost\r\nContent-Type: text/plain"), 415),
        (request(LARGER, headers=f"{USUAL}\r\nTransfer-Encoding: chunked"), 400),
        (request(LARGER, headers=f"{USUAL}\r\nContent-Length: 1"), 400),
        (request(LARGER, headers=f"{USUAL}\r\nbad name: 1"), 400),
        (request(LARGER, headers=f"{USUAL}\r\nOrigin: https://app.example"), 200),
        (request(LARGER, headers=f"{USUAL}\r\nConnection: close"), 200),
        (request(LARGER).replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    ],
)
def test_what_is_unusual_goes_the_usual_way(
    engine: FakeEngine, opened: socket.socket, sent: bytes, status: int
) -> None:
    engine.error = None
    opened.sendall(sent)
    assert opened.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_client_that_waits_for_100_is_told_at_once_as_ever(
    engine: FakeEngine, opened: socket.socket
) -> None:
    engine.error = None
    sent = request(LARGER, headers=f"{USUAL}\r\nExpect: 100-continue")
    opened.sendall(sent[: -len(LARGER)])
    assert opened.recv(65_536).startswith(b"HTTP/1.1 100 ")
    opened.sendall(LARGER)
    assert read_response(opened).startswith(b"HTTP/1.1 200 ")


def test_key_and_host_come_first(engine: FakeEngine) -> None:
    settings = ServerSettings(api_keys=("secret",), allowed_hosts=("rerank.example",))
    right = f"{USUAL}\r\nAuthorization: Bearer secret"
    with live_server(engine, settings) as url:
        cases = (
            (right, 429),
            (right, 429),
            (USUAL, 401),
            (right.replace("secret", "wrong"), 401),
            (right.replace("Host: localhost", "Host: evil.example"), 421),
            (right.replace("Authorization: Bearer", "api-key:"), 429),
        )
        for headers, status in cases:
            with connection(url) as other:
                other.sendall(request(LARGER, headers=headers))
                assert read_response(other).startswith(f"HTTP/1.1 {status} ".encode())
    assert len(engine.calls) == 1


def test_the_error_has_the_form_of_the_path(engine: FakeEngine) -> None:
    with live_server(engine) as url, httpx.Client() as client:
        client.post(f"{url}/rerank", json=BODIES["/rerank"])
        for path, body in BODIES.items():
            # longer than the first; the paths of two services answer in the first one's form
            sent = {**body, "user": "somebody whose name is longer than the first body"}
            address = f"{url}/{path}/"
            asked = len(engine.calls)
            usual = client.post(address, json=sent, headers={"Connection": "close"})
            assert len(engine.calls) == asked + 1
            shed = client.post(address, json=sent)
            assert len(engine.calls) == asked + 1
            assert (shed.status_code, shed.json()) == (usual.status_code, usual.json())
            assert {*shed.headers, "connection"} == {*usual.headers}
            assert shed.headers["retry-after"] == "3"


def test_a_server_of_several_models_waits_until_all_refuse(engine: FakeEngine) -> None:
    other = FakeEngine()
    with live_server({"a": engine, "b": other}) as url, httpx.Client(base_url=url) as client:
        bodies = {name: {**BODIES["/rerank"], "model": name} for name in "ab"}
        for name, status in (("a", 429), ("b", 200), ("a", 429), ("b", 200)):
            assert client.post("/rerank", json=bodies[name]).status_code == status
        other.error = engine.error
        for name in "bab":
            assert client.post("/rerank", json=bodies[name]).status_code == 429
    assert (len(engine.calls), len(other.calls)) == (2, 3)


def test_of_several_models_the_largest_size_that_one_refuses_counts(engine: FakeEngine) -> None:
    other = FakeEngine(engine.error)
    with live_server({"a": engine, "b": other}) as url, httpx.Client(base_url=url) as client:
        for name, n_documents in (("a", 1), ("b", 9), ("b", 5), ("b", 5)):
            body = {"query": "q", "documents": ["a document"] * n_documents, "model": name}
            assert client.post("/rerank", json=body).status_code == 429
    # a request of the middle size might have found a place in the other one's queue
    assert (len(engine.calls), len(other.calls)) == (1, 2)


def test_where_calls_wait_for_a_place_none_is_refused_unasked(engine: FakeEngine) -> None:
    engine.options = replace(CallOptions(), queue_timeout_s=1.0)
    with live_server(engine) as url, httpx.Client(base_url=url) as client:
        for _ in range(2):
            assert client.post("/rerank", json=BODIES["/rerank"]).status_code == 429
    assert len(engine.calls) == 2


def test_after_a_moment_the_queue_is_asked_again(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shedding, "_HOLDS_S", 0.0)
    with live_server(engine) as url, httpx.Client(base_url=url) as client:
        for _ in range(2):
            assert client.post("/rerank", json=BODIES["/rerank"]).status_code == 429
    assert len(engine.calls) == 2


def test_refusals_are_counted_one_by_one_and_logged_once(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "bge_rerank_integrations.serving")
    monkeypatch.setattr(shedding, "_LOG_EVERY_S", 0.1)
    with live_server(engine) as url, httpx.Client(base_url=url) as client:
        for _ in range(6):
            client.post("/rerank", json=BODIES["/rerank"])
        while "by their heads" not in caplog.text:
            client.get("/health")
        # lines of the others would come by then
        time.sleep(0.15)
        scraped = client.get("/metrics").text
    assert 'bge_rerank_requests_total{path="/rerank",status="429"} 6.0' in scraped
    assert 'bge_rerank_errors_total{cause="overloaded"} 6.0' in scraped
    assert 'bge_rerank_request_seconds_count{path="/rerank"} 6.0' in scraped
    logged = [record.getMessage() for record in caplog.records if "refused" in record.msg]
    counts = [int(line.split()[1]) for line in logged]
    assert sum(counts) == 5
    assert min(counts) > 0


def test_of_many_at_once_only_the_first_reach_the_queue(engine: FakeEngine) -> None:
    count = 200
    with live_server(engine) as url, ExitStack() as stack:
        opened = [stack.enter_context(connection(url)) for _ in range(count)]
        for each in opened:
            each.sendall(request(LARGER))
        for each in opened:
            assert read_response(each).startswith(b"HTTP/1.1 429 ")
            each.sendall(PROBE)
        for each in opened:
            assert read_response(each).startswith(b"HTTP/1.1 200 ")
    assert len(engine.calls) < count / 2


def test_of_many_at_once_all_are_answered() -> None:
    engine = FakeEngine()
    with live_server(engine) as url, ExitStack() as stack:
        opened = [stack.enter_context(connection(url)) for _ in range(100)]
        for each in opened:
            each.sendall(request(LARGER))
        for each in opened:
            assert read_response(each).startswith(b"HTTP/1.1 200 ")
    assert len(engine.calls) == 100


async def test_requests_begin_in_turns_in_their_order() -> None:
    connections = Connections(ServerSettings())
    began: list[int] = []

    class Waiting:
        """What asks again when it is its turn."""

        transport: asyncio.Transport
        is_extra, idle_since, is_silent = False, 0.0, False

        def __init__(self, number: int) -> None:
            self.number = number

        def begin(self) -> None:
            if connections.may_begin(self):
                began.append(self.number)

    for number in range(30):
        Waiting(number).begin()
    counts = []
    while len(began) < 30:
        counts.append(len(began))
        await asyncio.sleep(0)
    assert counts == [8, 16, 24]
    assert began == list(range(30))
    for _ in range(3):
        await asyncio.sleep(0)
    # the turns have ended, and begin again
    Waiting(30).begin()
    assert began[-1] == 30


def test_a_body_that_does_not_come_ends_its_connection(engine: FakeEngine) -> None:
    settings = ServerSettings(body_timeout_s=0.3)
    with live_server(engine, settings) as url:
        with connection(url) as first:
            first.sendall(request(LARGER))
            assert read_response(first).startswith(b"HTTP/1.1 429 ")
        with connection(url) as opened:
            opened.sendall(request(LARGER)[:-5])
            assert read_all(opened).startswith(b"HTTP/1.1 429 ")


def test_a_refused_connection_is_closed_when_it_is_idle(engine: FakeEngine) -> None:
    settings = ServerSettings(keep_alive_s=1)
    with live_server(engine, settings) as url, connection(url) as first:
        first.sendall(request(LARGER))
        read_response(first)
        with connection(url) as opened:
            opened.sendall(request(LARGER))
            assert read_all(opened).startswith(b"HTTP/1.1 429 ")
    assert len(engine.calls) == 1
