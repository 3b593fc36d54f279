"""Spans of requests and of the engine's calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from bge_rerank_integrations import ConfigurationError, MissingExtraError, ScoringError
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.metrics import start_tracing
from serving.fake_engine import FakeEngine

BODY = {"query": "the secret query", "documents": ["a secret document", "b"]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACES_EXPORTER", "EXPORTER_OTLP_ENDPOINT", "SDK_DISABLED", "SERVICE_NAME"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(
    engine: FakeEngine, spans: InMemorySpanExporter
) -> AsyncIterator[httpx.AsyncClient]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = create_app(engine, tracer_provider=provider)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        yield client


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


async def test_a_request_and_its_engine_call_are_spans_of_the_clients_trace(
    client: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "mine"}
    assert (await client.post("/v1/rerank", json=BODY, headers=headers)).status_code == 200
    named = by_name(spans)
    assert list(named) == ["rerank", "POST /v1/rerank"]
    request, call = named["POST /v1/rerank"], named["rerank"]
    assert request.context is not None
    assert request.parent is not None
    assert call.parent is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert call.parent.span_id == request.context.span_id
    assert request.attributes is not None
    assert request.attributes["http.route"] == "/v1/rerank"
    assert call.attributes == {
        "bge_rerank.documents": 2,
        "bge_rerank.request_id": "mine",
        "bge_rerank.tokens": 20,
        "bge_rerank.model": "fake",
    }
    assert "secret" not in "".join(span.to_json() for span in named.values())


async def test_a_request_without_a_trace_begins_one(
    client: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    await client.post("/rerank", json=BODY)
    await client.post("/rerank", json=BODY)
    requests = [span for span in spans.get_finished_spans() if span.name == "POST /rerank"]
    assert [span.parent for span in requests] == [None, None]
    assert len({span.context.trace_id for span in requests if span.context}) == 2


async def test_a_failed_call_is_an_error_without_its_message(
    client: httpx.AsyncClient, engine: FakeEngine, spans: InMemorySpanExporter
) -> None:
    engine.error = ScoringError("a secret")
    assert (await client.post("/rerank", json=BODY)).status_code == 500
    named = by_name(spans)
    assert {span.status.status_code for span in named.values()} == {StatusCode.ERROR}
    assert (named["rerank"].attributes or {})["error.type"] == "ScoringError"
    assert "secret" not in named["rerank"].to_json()


async def test_probes_have_no_spans_and_unknown_paths_no_names(
    client: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    for path in ("/health", "/ready", "/metrics", "/made/up", "/info"):
        await client.get(path)
    assert [span.name for span in spans.get_finished_spans()] == ["GET", "GET"]


def test_nothing_of_it_is_imported_unless_spans_are_wanted() -> None:
    program = """if True:
        import sys
        from bge_rerank_integrations.serving.app import create_app
        from bge_rerank_integrations.serving.metrics import start_tracing
        create_app(lambda: None, tracer_provider=start_tracing())
        # the API alone is imported by others, where it is installed
        extra = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation")
        print(*[name for name in sys.modules if name.startswith(extra)])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("variables", "wanted", "is_on"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, True, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, True, False),
    ],
)
def test_the_standard_variables_switch_it_on_and_off(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool, is_on: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    provider = start_tracing(wanted=wanted)
    assert (provider is not None) is is_on
    if provider is not None:
        provider.shutdown()


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_what_is_not_supported_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name} must be .*, got '{value}'"):
        start_tracing(wanted=True)


def test_without_the_extra_the_option_fails_and_the_variables_warn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError, match=r"bge-rerank-integrations\[otel\]"):
        start_tracing(wanted=True)
    assert not caplog.records
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert start_tracing() is None
    assert "no traces are sent" in caplog.text


@pytest.mark.enable_socket
def test_spans_reach_the_collector_before_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the handler's name for it
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "search")
        app = create_app(FakeEngine(), tracer_provider=start_tracing())  # type: ignore[arg-type]

        async def ask() -> None:
            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://server") as client,
            ):
                await client.post("/rerank", json=BODY)

        asyncio.run(ask())
        collector.shutdown()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert b"POST /rerank" in body
    assert b"search" in body
    assert b"secret" not in body
