"""A server around an engine without a model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

import httpx
import pytest
from fastapi import FastAPI

from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import Engine, FakeEngine, loads

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@asynccontextmanager
async def served(
    engine: Engine | Mapping[str, Engine],
    settings: ServerSettings | None = None,
    *,
    raise_errors: bool = True,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that is ready, without a socket."""
    app = create_app(loads(engine), settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=raise_errors)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.005)
        yield client


def probability(logit: float) -> float:
    """The score from 0 to 1 that belongs to a logit, by its definition."""
    return 1 / (1 + math.exp(-logit))


@pytest.fixture
def serve() -> Serve:
    """Make a server and its client."""
    return served


@cache
def _shared() -> tuple[FakeEngine, FastAPI]:
    """One server for all tests that need no other settings: making one takes most of a test."""
    engine = FakeEngine()
    return engine, create_app(engine)


@pytest.fixture
def fake_engine() -> FakeEngine:
    """The engine of ``client``, as new: it counts words."""
    engine, _ = _shared()
    vars(engine).update(vars(FakeEngine()))
    return engine


@pytest.fixture
async def client(fake_engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server around the fake engine."""
    _, app = _shared()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client
