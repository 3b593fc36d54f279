"""Each family end to end through both frameworks, on the tiny golden checkpoints."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from paths import GOLDEN

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.highlighting import SentenceWindows
from bge_rerank_integrations.langchain import BGERerank as LangChainRerank
from bge_rerank_integrations.llama_index import BGERerank as LlamaIndexRerank

QUERY = "What is the capital of France?"
TEXTS = [
    "Paris is the capital of France.",
    "The population of China is over 1.4 billion people.",
    ".",
    "A passage that goes on and on. " * 40,
]
FAMILIES: list[dict[str, Any]] = [
    {"model": "xlmr", "long_documents": "window", "max_length": 64},
    {"model": "gemma", "instruction": "Does the passage answer?"},
    {"model": "minicpm", "cutoff_layers": 6},
    {"model": "minicpm", "cutoff_layers": [3, 5], "instruction": "Does the passage answer?"},
    {"model": "light", "cutoff_layers": [7], "compress_ratio": 2, "compress_layers": [2, 5]},
]


@pytest.fixture(params=FAMILIES, ids=lambda family: family["model"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    model = str(GOLDEN / request.param["model"])
    return {**request.param, "model": model, "device": "cpu", "dtype": "float32"}


def expected(settings: dict[str, Any]) -> list[tuple[str, float]]:
    ranking = RerankEngine.shared(**settings).rerank(QUERY, TEXTS, top_n=3)
    return [(TEXTS[document.index], document.score) for document in ranking]


async def test_llama_index(settings: dict[str, Any]) -> None:
    reranker = LlamaIndexRerank(**settings)
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
    for kept in (
        reranker.postprocess_nodes(nodes, query_str=QUERY),
        await reranker.apostprocess_nodes(nodes, query_str=QUERY),
    ):
        assert [node.text for node in kept] == [text for text, _ in expected(settings)]
        scores = [score for _, score in expected(settings)]
        assert [node.score for node in kept] == pytest.approx(scores, abs=1e-5)


async def test_langchain(settings: dict[str, Any]) -> None:
    reranker = LangChainRerank(**settings)
    documents = [Document(page_content=text) for text in TEXTS]
    for kept in (
        reranker.compress_documents(documents, QUERY),
        await reranker.acompress_documents(documents, QUERY),
    ):
        assert [document.page_content for document in kept] == [t for t, _ in expected(settings)]
        scores = [document.metadata["relevance_score"] for document in kept]
        assert scores == pytest.approx([score for _, score in expected(settings)], abs=1e-5)


def test_sentences_are_scored(settings: dict[str, Any]) -> None:
    engine = RerankEngine.shared(**settings)
    text = "Paris is old. It is the capital of France. Bread is cheap there."

    [spans] = engine.highlight(QUERY, [text])

    assert "".join(text[span.start : span.end] for span in spans) == text
    scores = engine.score(QUERY, SentenceWindows([text]).texts)
    means = [math.sqrt(one * other) for one, other in pairwise(scores)]
    assert [span.score for span in spans] == pytest.approx(means, abs=1e-5)
    assert len(set(means)) == 3


def test_settings_survive_serialization(settings: dict[str, Any]) -> None:
    reranker = LlamaIndexRerank(**settings)
    again = LlamaIndexRerank.from_json(reranker.to_json())
    assert again.engine_config == reranker.engine_config
    assert again._find() == reranker._find() == RerankEngine.shared(**settings)
