"""What a query and its documents may be: the same for an engine and a remote service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from bge_rerank_integrations import InputError, Ranking, RemoteReranker, RerankEngine

Ask = Callable[[Any, Any], Ranking]


def lengths(request: httpx.Request) -> httpx.Response:
    """A service that scores a document by its length."""
    documents = json.loads(request.content)["documents"]
    results = [{"index": i, "relevance_score": len(d) / 10} for i, d in enumerate(documents)]
    return httpx.Response(200, json={"results": results})


@pytest.fixture(params=["engine", "remote", "remote in requests of two"])
def rerank(request: pytest.FixtureRequest, engine: RerankEngine) -> Iterator[Ask]:
    if request.param == "engine":
        yield engine.rerank
        return
    at_most = 2 if request.param == "remote in requests of two" else None
    transport = httpx.MockTransport(lengths)
    with RemoteReranker("http://service", max_documents=at_most, transport=transport) as reranker:
        yield reranker.rerank


def test_documents_may_come_from_a_generator(rerank: Ask) -> None:
    documents = ["a panda", "a bear in the wood", "bamboo", "a panda"]
    ranking = rerank("what is a panda?", (document for document in documents))
    assert len(ranking) == 4
    assert ranking == rerank("what is a panda?", documents)


def test_an_empty_generator_is_an_empty_ranking(rerank: Ask) -> None:
    assert len(rerank("q", iter(()))) == 0


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "document 3 must be a string, got NoneType"),
        (b"bytes", "document 3 must be a string, got bytes"),
        (3, "document 3 must be a string, got int"),
        ("bad \ud800", r"document 3 holds a lone surrogate \('\\ud800' at character 4\)"),
    ],
)
def test_a_wrong_document_is_named(rerank: Ask, document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rerank("q", ["fine", "also fine", "fine", document])
    assert caught.value.index == 3


@pytest.mark.parametrize("query", [None, "\udfff", 1])
def test_a_wrong_query_is_named(rerank: Ask, query: Any) -> None:
    with pytest.raises(InputError, match=r"^query ") as caught:
        rerank(query, ["a"])
    assert caught.value.index is None


@pytest.mark.parametrize(
    ("documents", "got"), [("abc", "one string: 'abc'"), (None, "NoneType"), (5, "int")]
)
def test_what_is_no_list_is_refused(rerank: Ask, documents: Any, got: str) -> None:
    with pytest.raises(InputError, match=f"documents must be a sequence of strings, got {got}"):
        rerank("q", documents)
