"""Health, readiness, metrics and the description of a server."""

from __future__ import annotations

import asyncio
import platform
import re
import sys
import threading
from dataclasses import replace

import httpx
import pytest
import torch
import transformers

from bge_rerank_integrations import ModelLoadError, OverloadedError, __version__
from bge_rerank_integrations.engine.scheduling.stats import Counters, EngineStats
from bge_rerank_integrations.serving.api_errors import ErrorKind
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import Serve
from serving.fake_engine import FakeEngine

BODY = {"query": "a", "documents": ["a", "b"]}


async def test_a_server_says_when_it_is_ready() -> None:
    loaded = threading.Event()

    def load() -> FakeEngine:
        assert loaded.wait(20)
        return FakeEngine()

    app = create_app(load)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200
        response = await client.post("/rerank", json=BODY)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["detail"] == "the model is being loaded"
        assert "bge_rerank_ready 0.0" in (await client.get("/metrics")).text
        loaded.set()
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.005)
        assert (await client.post("/rerank", json=BODY)).status_code == 200


async def test_a_model_that_cannot_be_loaded_is_a_failed_server() -> None:
    def load() -> FakeEngine:
        raise ModelLoadError("there is none")

    errors: list[Exception] = []
    app = create_app(load, on_load_error=errors.append)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client,
    ):
        while not errors:
            await asyncio.sleep(0.005)
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/ready")).status_code == 503
        assert (await client.post("/rerank", json=BODY)).status_code == 503
        assert (await client.get("/info")).status_code == 503


async def test_a_dead_engine_is_a_failed_server(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        engine.is_alive = False
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/ready")).status_code == 503


async def test_the_metrics_count_requests_and_show_the_engines(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        await client.post("/rerank", json=BODY)
        await client.post("/rerank", json={})
        await client.post("/made/up/path", json={})
        text = (await client.get("/metrics")).text
    assert 'bge_rerank_requests_total{path="/rerank",status="200"} 1.0' in text
    assert 'bge_rerank_requests_total{path="/rerank",status="422"} 1.0' in text
    assert 'bge_rerank_request_seconds_count{path="/rerank"} 2.0' in text
    assert "bge_rerank_request_documents_sum 2.0" in text
    assert "bge_rerank_requests_in_progress 0.0" in text
    assert 'bge_rerank_engine_tokens_total{model="fake"} 0.0' in text
    assert "bge_rerank_ready 1.0" in text
    assert "made/up" not in text


async def test_the_metrics_tell_the_build_and_the_process(client: httpx.AsyncClient) -> None:
    lines = (await client.get("/metrics")).text.splitlines()
    build = next(line for line in lines if line.startswith("bge_rerank_build_info"))
    assert build.endswith(" 1.0")
    assert dict(re.findall(r'(\w+)="([^"]*)"', build)) == {
        "version": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    assert any(line.startswith("python_info{") for line in lines)
    if sys.platform == "linux":
        values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("process_"))
        assert float(values["process_resident_memory_bytes"]) > 1e7
        assert float(values["process_open_fds"]) >= 3


async def test_the_metrics_have_the_engines_histograms(serve: Serve) -> None:
    class Busy(FakeEngine):
        def stats(self) -> EngineStats:
            counters = Counters()
            for seconds in (0.003, 0.02, 100.0):
                counters.observe("queue_wait_s", seconds)
            counters.add_batch(16, 2_000)
            return replace(super().stats(), **counters.snapshot())

    async with serve(Busy()) as client:
        text = (await client.get("/metrics")).text
    wait = "bge_rerank_engine_queue_wait_seconds"
    assert f'{wait}_bucket{{le="0.0025",model="fake"}} 0.0' in text
    assert f'{wait}_bucket{{le="0.005",model="fake"}} 1.0' in text
    assert f'{wait}_bucket{{le="30.0",model="fake"}} 2.0' in text
    assert f'{wait}_bucket{{le="+Inf",model="fake"}} 3.0' in text
    assert f'{wait}_count{{model="fake"}} 3.0' in text
    assert f'{wait}_sum{{model="fake"}} 100.023' in text
    assert 'bge_rerank_engine_batch_sequences_sum{model="fake"} 16.0' in text
    assert 'bge_rerank_engine_batch_tokens_sum{model="fake"} 2000.0' in text


async def test_refusals_are_counted_by_their_cause(serve: Serve) -> None:
    settings = ServerSettings(api_keys=("key",), max_body_bytes=100)
    full = FakeEngine(OverloadedError("full"))
    async with serve(full, settings) as client:
        await client.post("/rerank", json=BODY)
        client.headers["Authorization"] = "Bearer key"
        await client.post("/rerank", json=BODY)
        await client.post("/rerank", json=BODY)
        await client.post("/rerank", json=BODY | {"query": "long" * 100})
        text = (await client.get("/metrics")).text
    causes = {
        line.split('"')[1]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("bge_rerank_errors_total{")
    }
    assert causes == {kind.value: 0 for kind in ErrorKind} | {
        "invalid_api_key": 1,
        "overloaded": 2,
        "request_too_large": 1,
    }


async def test_two_servers_count_apart(serve: Serve) -> None:
    async with serve(FakeEngine()) as first, serve(FakeEngine()) as second:
        await first.post("/rerank", json=BODY)
        assert "bge_rerank_requests_total{" not in (await second.get("/metrics")).text


async def test_info_names_model_and_limits(serve: Serve) -> None:
    async with serve({"mine": FakeEngine()}, ServerSettings(max_documents=5)) as client:
        info = (await client.get("/info")).json()
        assert (info["model_id"], info["max_documents"]) == ("mine", 5)
        assert (info["max_input_length"], info["model_dtype"]) == (512, "float32")
        assert (await client.post("/rerank", json=BODY)).json()["model"] == "mine"


async def test_an_answer_tells_its_time(client: httpx.AsyncClient) -> None:
    timing = (await client.post("/rerank", json=BODY)).headers["server-timing"]
    assert timing.startswith("rerank;dur=")
    assert float(timing.removeprefix("rerank;dur=")) >= 0


@pytest.mark.parametrize("path", ["/docs/oauth2-redirect", "/redoc", "/rerank/x"])
async def test_nothing_else_is_there(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_the_paths_are_a_page_without_a_key_or_scripts(serve: Serve) -> None:
    async with serve(FakeEngine(), ServerSettings(api_keys=("k",))) as client:
        response = await client.get("/docs")
        described = (await client.get("/openapi.json")).json()
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "script-src 'sha256-" in response.headers["content-security-policy"]
    assert "<script" not in response.text
    for path in described["paths"]:
        assert f"<code>{path}</code>" in response.text
