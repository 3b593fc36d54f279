"""What OpenInference's instrumentation of LangChain makes of a reranking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_reranker import FakeReranker
from langchain_core.documents import Document
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from bge_rerank_integrations.langchain import BGERerank

openinference = pytest.importorskip(
    "openinference.instrumentation.langchain", reason="OpenInference is not installed"
)
from openinference.instrumentation import TraceConfig  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)

DOCUMENTS = [Document(id="a", page_content="bread"), Document(page_content="ships float")]


@pytest.fixture(params=[TraceConfig(), TraceConfig(hide_inputs=True)], ids=["open", "hidden"])
def config(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def exporter(config: Any) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = openinference.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider, config=config)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


def _attributes(exporter: InMemorySpanExporter) -> dict[str, Any]:
    [span] = exporter.get_finished_spans()
    assert span.name == "BGERerank"
    return dict(span.attributes or {})


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_reranking_is_a_span_of_its_kind(
    exporter: InMemorySpanExporter, config: Any, is_async: bool
) -> None:
    compressor, runs = BGERerank(reranker=FakeReranker(), top_n=1), RunCollectorCallbackHandler()

    if is_async:
        await compressor.acompress_documents(DOCUMENTS, "ships float", [runs])
    else:
        compressor.compress_documents(DOCUMENTS, "ships float", [runs])

    attributes = _attributes(exporter)
    reranking = {key: value for key, value in attributes.items() if key.startswith("reranker.")}
    assert attributes["openinference.span.kind"] == "RERANKER"
    expected = {
        "reranker.query": "ships float",
        "reranker.model_name": "fake",
        "reranker.top_k": 1,
        "reranker.input_documents.0.document.id": "a",
        "reranker.input_documents.0.document.content": "bread",
        "reranker.input_documents.1.document.content": "ships float",
        "reranker.output_documents.0.document.content": "ships float",
        "reranker.output_documents.0.document.score": 0.5,
    }
    if config.hide_inputs:
        expected = {key: value for key, value in expected.items() if ".input_" not in key}
        expected["reranker.query"] = "__REDACTED__"
    assert reranking == expected
    # other tracers see the type that they know
    assert [run.run_type for run in runs.traced_runs] == ["chain"]


def test_a_failed_reranking_is_a_span_of_its_kind(exporter: InMemorySpanExporter) -> None:
    compressor = BGERerank(reranker=FakeReranker(error=RuntimeError("broken")), top_n=None)

    with pytest.raises(RuntimeError, match="broken"):
        compressor.compress_documents(DOCUMENTS, "ships float")

    attributes = _attributes(exporter)
    assert attributes["openinference.span.kind"] == "RERANKER"
    assert attributes["reranker.top_k"] == 2
