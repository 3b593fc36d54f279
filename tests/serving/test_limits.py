"""Key, limits, deadline and cancelled requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from bge_rerank_integrations import ConfigurationError
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import Serve
from serving.fake_engine import FakeEngine
from serving.test_errors import BODIES, message_of

KEY = "a-key-that-nobody-guesses"
PUBLIC = ("/", "/health", "/ready", "/openapi.json")
PRIVATE = ("/info", "/models", "/v1/models", "/metrics", "/nothing")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", "ü"])
async def test_every_alias_asks_for_the_key(serve: Serve, header: str | None) -> None:
    engine = FakeEngine()
    wrong = {} if header is None else {"Authorization": header.encode("latin-1")}
    async with serve(engine, ServerSettings(api_keys=(KEY,))) as client:
        for path, body in BODIES.items():
            response = await client.post(path, json=body, headers=wrong)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
            assert "key" in message_of(path, response)
            assert KEY not in response.text
        assert not engine.calls
        for path, body in BODIES.items():
            right = {"Authorization": f"bearer  {KEY}"}
            assert (await client.post(path, json=body, headers=right)).status_code == 200, path


async def test_each_of_several_keys_is_accepted(serve: Serve) -> None:
    async with serve(FakeEngine(), ServerSettings(api_keys=("old-key", "new-key"))) as client:
        for key, status in (("old-key", 200), ("new-key", 200), ("old-key,new-key", 401)):
            response = await client.get("/info", headers={"Authorization": f"Bearer {key}"})
            assert response.status_code == status


async def test_only_the_page_and_the_state_are_public(serve: Serve) -> None:
    async with serve(FakeEngine(), ServerSettings(api_keys=(KEY,))) as client:
        for path in PUBLIC:
            assert (await client.get(path)).status_code == 200
        for path in PRIVATE:
            assert (await client.get(path)).status_code == 401
        # one path a request, for the key too
        assert (await client.get("/health//")).status_code == 200
        for path in ("/metrics/", "/metrics//", "/v1/v1/models/", "/health/x", "/v1/health"):
            assert (await client.get(path)).status_code == 401


@cache
def named_server() -> tuple[FakeEngine, FastAPI]:
    """A server that has a host name."""
    engine = FakeEngine()
    settings = ServerSettings(allowed_hosts=("rerank.example.com",), api_keys=(KEY,))
    return engine, create_app(engine, settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost", True),
        ("LocalHost:8787", True),
        ("rerank.example.com", True),
        ("Rerank.Example.com.:80", True),
        ("127.0.0.1:8787", True),
        ("[::1]:8787", True),
        ("10.0.0.7", True),
        ("", True),
        ("evil.example", False),
        ("rerank.example.com.evil.example", False),
        ("localhost.evil.example:8787", False),
        ("127.0.0.1.evil.example", False),
        ("[evil.example]", False),
        ("localhost:80@evil.example", False),
        ("localhost, evil.example", False),
    ],
)
async def test_only_the_servers_own_host_names_are_answered(
    serve: Serve, host: str, is_allowed: bool
) -> None:
    engine, app = named_server()
    engine.calls.clear()
    headers = {"Host": host, "Authorization": f"Bearer {KEY}"}
    # one host of either kind asks for everything
    paths = BODIES if host in ("localhost", "evil.example") else ["/rerank"]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        for path in paths:
            response = await client.post(path, json=BODIES[path], headers=headers)
            assert response.status_code == (200 if is_allowed else 421)
            if not is_allowed:
                assert "host name" in message_of(path, response)
        assert (await client.get("/", headers=headers)).status_code == (200 if is_allowed else 421)
    assert bool(engine.calls) == is_allowed


@pytest.mark.parametrize("hosts", [("localhost", "evil.example"), ("evil.example", "localhost")])
async def test_every_host_that_a_request_names_must_be_the_servers(hosts: tuple[str, str]) -> None:
    _, app = named_server()
    headers = [("Authorization", f"Bearer {KEY}"), *(("Host", host) for host in hosts)]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        response = await client.post("/rerank", json=BODIES["/rerank"], headers=headers)
    assert response.status_code == 421


@pytest.mark.parametrize("is_sized", [True, False])
async def test_a_body_may_be_as_large_as_the_limit(serve: Serve, is_sized: bool) -> None:
    body = json.dumps(BODIES["/rerank"]).encode()

    async def unsized() -> AsyncIterator[bytes]:
        yield body

    headers = {"Content-Type": "application/json"}
    for limit, status in ((len(body), 200), (len(body) - 1, 413)):
        async with serve(FakeEngine(), ServerSettings(max_body_bytes=limit)) as client:
            content = body if is_sized else unsized()
            response = await client.post("/rerank", content=content, headers=headers)
            assert response.status_code == status


async def test_a_body_that_is_too_large_is_refused(serve: Serve) -> None:
    async with serve(FakeEngine(), ServerSettings(max_body_bytes=20)) as client:
        for path, body in BODIES.items():
            response = await client.post(path, json=body)
            assert response.status_code == 413, path
            assert message_of(path, response) == "a request may hold 20 bytes"


async def test_a_body_without_a_length_is_counted_while_it_comes(serve: Serve) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b" " * 100

    headers = {"Content-Type": "application/json"}
    async with serve(FakeEngine(), ServerSettings(max_body_bytes=1_000)) as client:
        response = await client.post("/v2/rerank", content=endless(), headers=headers)
    assert response.status_code == 413
    assert response.json() == {"message": "a request may hold 1000 bytes"}
    assert sent <= 1_200


async def test_too_many_documents_are_refused(serve: Serve) -> None:
    async with serve(FakeEngine(), ServerSettings(max_documents=3)) as client:
        response = await client.post("/rerank", json={"query": "q", "documents": ["a"] * 4})
        assert response.status_code == 422
        assert response.json()["detail"] == "a request may hold 3 documents, got 4"
        response = await client.post("/score", json={"text_1": ["q"] * 4, "text_2": ["a"] * 4})
        assert response.status_code == 400
        for path, body in (
            ("/rerank", {"query": "q", "documents": ["a"] * 3}),
            ("/score", {"text_1": ["q"] * 3, "text_2": ["a"] * 3}),
        ):
            assert (await client.post(path, json=body)).status_code == 200


async def test_a_text_that_is_too_long_is_named(serve: Serve) -> None:
    async with serve(FakeEngine(), ServerSettings(max_characters=10)) as client:
        response = await client.post("/rerank", json={"query": "q" * 11, "documents": ["a"]})
        assert response.json()["detail"] == "the query may hold 10 characters, got 11"
        response = await client.post("/rerank", json={"query": "q", "documents": ["a", "b" * 11]})
        assert response.json()["error"]["param"] == "documents[1]"
        response = await client.post(
            "/score", json={"text_1": ["q", "q" * 11], "text_2": ["a"] * 2}
        )
        error = response.json()["error"]
        assert (error["message"], error["param"]) == (
            "query 1 may hold 10 characters, got 11",
            None,
        )
        response = await client.post("/rerank", json={"query": "q" * 10, "documents": ["b" * 10]})
        assert response.status_code == 200


async def test_the_engine_is_told_the_deadline(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine, ServerSettings(timeout_s=7)) as client:
        await client.post("/rerank", json=BODIES["/rerank"])
        await client.post("/score", json={"text_1": ["q", "r"], "text_2": ["a", "b"]})
    assert [options["timeout_s"] for _, options in engine.calls] == [7, 7]


async def call(app: Any, body: bytes, gone: asyncio.Event) -> list[Message]:
    """Post ``body`` to ``/score`` and hang up when ``gone`` is set."""
    messages = iter([{"type": "http.request", "body": body}])
    sent: list[Message] = []

    async def receive() -> Message:
        try:
            return next(messages)
        except StopIteration:
            await gone.wait()
            return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/score", "raw_path": b"/score",
        "headers": headers, "query_string": b"", "http_version": "1.1", "scheme": "http",
        "root_path": "",
        "server": ("server", 80), "client": ("client", 1), "state": {}, "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    "body",
    [
        b'{"text_1": "q", "text_2": ["a", "b"]}',
        b'{"text_1": ["q", "r", "s"], "text_2": ["a", "b", "c"]}',
    ],
)
async def test_a_client_that_goes_away_leaves_the_queue(body: bytes) -> None:
    engine = FakeEngine(delay_s=30)
    app = create_app(lambda: engine)
    async with app.router.lifespan_context(app):
        while not app.state.service.is_ready:
            await asyncio.sleep(0.005)
        gone = asyncio.Event()
        request = asyncio.create_task(call(app, body, gone))
        while not engine.waiting:
            await asyncio.sleep(0.005)
        gone.set()
        sent = await asyncio.wait_for(request, 5)
        while engine.waiting:
            await asyncio.sleep(0.005)
    assert engine.cancelled == 1
    assert sent[0]["status"] == 499


@pytest.mark.parametrize(
    "settings",
    [
        {"api_keys": ("",)},
        {"api_keys": ("k", "ü")},
        {"api_keys": ("a key",)},
        {"api_keys": ("key\n",)},
        {"api_keys": "key"},
        {"allowed_hosts": "localhost"},
        {"allowed_hosts": ("localhost:80",)},
        {"max_documents": 0},
        {"max_body_bytes": True},
        {"timeout_s": 0},
        {"body_timeout_s": 0},
        {"timeout_s": float("nan")},
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        ServerSettings(**settings)


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(ServerSettings(api_keys=(KEY,)))
