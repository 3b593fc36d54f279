"""From candidates to context: blend, sources, budget, and what the retriever said."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fake_reranker import FakeReranker
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import (
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from bge_rerank_integrations import ConfigurationError, RerankEngine, langchain, llama_index
from bge_rerank_integrations.ranking import blend_ranks

QUERY = "why does a ship float in water?"
# scored by the words that they share with the query: 1, 3, 0, 2 of them
TEXTS = ["Bread needs water.", "A ship does float.", "Parliament.", "Ships float in rivers."]
RERANKED = [1, 3, 0, 2]


class Kept:
    """A document that came back, whatever the framework."""

    def __init__(self, text: str, score: float | None, metadata: dict[str, Any]) -> None:
        self.text, self.score, self.metadata = text, score, metadata


Keep = Callable[..., list[Kept]]


def _llama_index(
    texts: Sequence[str], sources: Sequence[str] | None = None, **settings: Any
) -> Any:
    nodes = []
    for place, text in enumerate(texts):
        node = TextNode(text=text)
        if sources:
            source = RelatedNodeInfo(node_id=sources[place])
            node.relationships[NodeRelationship.SOURCE] = source
        nodes.append(NodeWithScore(node=node, score=1 / (place + 1)))
    reranker = llama_index.BGERerank(**{"reranker": FakeReranker(), **settings})
    return reranker, nodes


def _langchain(texts: Sequence[str], sources: Sequence[str] | None = None, **settings: Any) -> Any:
    documents = [
        Document(
            page_content=text,
            metadata={"score": 1 / (place + 1)} | ({"source": sources[place]} if sources else {}),
        )
        for place, text in enumerate(texts)
    ]
    return langchain.BGERerank(**{"reranker": FakeReranker(), **settings}), documents


def llama_index_sync(*given: Any, **settings: Any) -> list[Kept]:
    reranker, nodes = _llama_index(*given, **settings)
    return _of_nodes(reranker.postprocess_nodes(nodes, query_str=QUERY))


def llama_index_async(*given: Any, **settings: Any) -> list[Kept]:
    reranker, nodes = _llama_index(*given, **settings)
    return _of_nodes(asyncio.run(reranker.apostprocess_nodes(nodes, query_str=QUERY)))


def langchain_sync(*given: Any, **settings: Any) -> list[Kept]:
    reranker, documents = _langchain(*given, **settings)
    return _of_documents(reranker.compress_documents(documents, QUERY))


def langchain_async(*given: Any, **settings: Any) -> list[Kept]:
    reranker, documents = _langchain(*given, **settings)
    return _of_documents(asyncio.run(reranker.acompress_documents(documents, QUERY)))


def langchain_retriever(*given: Any, **settings: Any) -> list[Kept]:
    reranker, documents = _langchain(*given)
    retriever = langchain.BGERerankRetriever(
        reranker=reranker, base_retriever=RunnableLambda(lambda _: documents)
    )
    return _of_documents(retriever.invoke(QUERY, **{"top_n": 3, **settings}))


def _of_nodes(nodes: list[NodeWithScore]) -> list[Kept]:
    return [Kept(it.node.get_content(), it.score, it.node.metadata) for it in nodes]


def _of_documents(documents: list[Document]) -> list[Kept]:
    return [
        Kept(it.page_content, it.metadata.get("relevance_score"), it.metadata) for it in documents
    ]


every_way = pytest.mark.parametrize(
    "keep",
    [llama_index_sync, llama_index_async, langchain_sync, langchain_async, langchain_retriever],
)


def places(kept: Sequence[Kept]) -> list[int]:
    return [TEXTS.index(it.text) for it in kept]


@every_way
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_a_weight_blends_the_orders_and_keeps_the_scores(keep: Keep, weight: float) -> None:
    kept = keep(TEXTS, retrieval_weight=weight, top_n=None)
    assert places(kept) == (blend_ranks(RERANKED, weight) if weight else RERANKED)
    alone = {it.text: it.score for it in keep(TEXTS, top_n=None)}
    assert {it.text: it.score for it in kept} == alone
    assert places(keep(TEXTS, retrieval_weight=weight, top_n=2)) == places(kept)[:2]


@every_way
def test_a_blend_is_of_ranks_among_all_documents_and_then_cut_by_score(keep: Keep) -> None:
    blended = places(keep(TEXTS, retrieval_weight=0.7, top_n=None))
    kept = places(keep(TEXTS, retrieval_weight=0.7, top_n=None, score_threshold=0.4))
    assert kept == [place for place in blended if place in (1, 3)]
    # ranks among those that are left would give another order
    kept = places(keep(TEXTS, retrieval_weight=0.3, top_n=None, score_threshold=0.2))
    assert kept == [1, 0, 3]


@every_way
def test_so_many_passages_of_one_source_are_kept(keep: Keep) -> None:
    sources = ["a", "b", "c", "b"]
    assert places(keep(TEXTS, sources, per_source=1, top_n=3)) == [1, 0, 2]
    assert places(keep(TEXTS, sources, per_source=2, top_n=3)) == [1, 3, 0]
    # without a source a passage is of none
    assert places(keep(TEXTS, per_source=1, top_n=None)) == RERANKED


@every_way
def test_a_duplicate_takes_no_place_of_its_source(keep: Keep) -> None:
    texts = [*TEXTS[:2], TEXTS[1], TEXTS[3]]
    kept = keep(texts, ["a", "b", "b", "b"], per_source=2, drop_duplicates=True, top_n=3)
    assert places(kept) == [1, 3, 0]
    # nor do others of a full source take those of what comes behind them
    kept = keep(TEXTS, ["b", "a", "c", "a"], per_source=1, drop_duplicates=True, top_n=2)
    assert places(kept) == [1, 0]


def words(text: str) -> int:
    return len(text.split())


@every_way
def test_the_best_that_fit_a_budget_are_kept(keep: Keep) -> None:
    how = {"count_tokens": words, "top_n": None}
    assert places(keep(TEXTS, max_context_tokens=8, **how)) == [1, 3]
    # the second best does not fit, and the last does
    assert places(keep(TEXTS, max_context_tokens=7, **how)) == [1, 0]
    assert places(keep(TEXTS, max_context_tokens=5, **how)) == [1, 2]
    assert keep(TEXTS, max_context_tokens=5, **{**how, "top_n": 1})[0].text == TEXTS[1]


@every_way
def test_where_sentences_are_cut_a_document_that_does_not_fit_is_cut_too(keep: Keep) -> None:
    texts = ["A ship does float in water. It does. Why?"]
    how = {"count_tokens": words, "prune_share": 0.0}
    assert [it.text for it in keep(texts, max_context_tokens=8, **how)] == [
        "A ship does float in water. It does."
    ]
    assert keep(texts, max_context_tokens=8, count_tokens=words) == []


@every_way
def test_a_budget_holds_where_reranking_fails(keep: Keep) -> None:
    failing = FakeReranker(error=RuntimeError("the service is away"))
    if keep is langchain_retriever:
        pytest.skip("its reranker does not fail")
    how = {"count_tokens": words, "top_n": None, "on_error": "keep", "reranker": failing}
    assert places(keep(TEXTS, max_context_tokens=7, **how)) == [0, 1]


def test_random_budgets_are_never_exceeded_and_count_metadata_that_the_llm_reads() -> None:
    rng = random.Random(3)
    for _ in range(60):
        nodes = [
            NodeWithScore(
                node=TextNode(
                    text=" ".join(["Ships", "float.", "It", "is."][: rng.randint(0, 4)]),
                    metadata={"title": "a long title"} if rng.random() < 0.5 else {},
                )
            )
            for _ in range(12)
        ]
        budget = rng.randint(1, 60)
        reranker = llama_index.BGERerank(
            reranker=FakeReranker(), top_n=None, max_context_tokens=budget, count_tokens=words
        )
        kept = reranker.postprocess_nodes(nodes, query_str=QUERY)
        read = [it.node.get_content(metadata_mode=MetadataMode.LLM) for it in kept]
        assert sum(map(words, read)) <= budget


def test_an_engine_counts_tokens_itself() -> None:
    tiny = RerankEngine.shared("tiny")
    texts = ["A ship floats because it displaces water.", "Ships sink.", "Bread is baked."]
    reranker = langchain.BGERerank(reranker=tiny, top_n=None, max_context_tokens=12)
    kept = reranker.compress_documents([Document(page_content=text) for text in texts], QUERY)
    counts = [tiny.count_tokens(it.page_content) for it in kept]
    assert counts[0] == 11
    assert sum(counts) <= 12
    assert tiny.count_tokens("") == 0


@every_way
def test_what_the_retriever_said_is_kept_beside_the_scores(keep: Keep) -> None:
    for it in keep(TEXTS, keep_retrieval_score=True, top_n=None):
        rank = TEXTS.index(it.text) + 1
        assert (it.metadata["retrieval_score"], it.metadata["retrieval_rank"]) == (1 / rank, rank)
        json.dumps(it.metadata)


def test_the_retrievers_score_is_found_under_its_key() -> None:
    given = [Document(page_content="a", metadata={"relevance_score": 0.25, "bm25": 7.0})]

    def kept(**settings: Any) -> Any:
        reranker = langchain.BGERerank(
            reranker=FakeReranker(), keep_retrieval_score=True, **settings
        )
        return reranker.compress_documents(given, QUERY)[0].metadata["retrieval_score"]

    assert kept() == 0.25
    assert kept(retrieval_score_key="bm25") == 7.0
    assert kept(retrieval_score_key="none") is None
    assert given[0].metadata == {"relevance_score": 0.25, "bm25": 7.0}


@pytest.mark.parametrize("component", [langchain.BGERerank, llama_index.BGERerank])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retrieval_weight", 1.5),
        ("retrieval_weight", -0.1),
        ("retrieval_weight", None),
        ("retrieval_weight", True),
        ("per_source", 0),
        ("max_context_tokens", 0),
        ("max_context_tokens", 2.5),
        ("count_tokens", 7),
        ("keep_retrieval_score", "yes"),
    ],
)
def test_a_setting_that_cannot_work_is_named(component: Any, name: str, value: Any) -> None:
    with pytest.raises((ValueError, ConfigurationError), match=name):
        component(reranker=FakeReranker(), **{name: value})


@pytest.mark.parametrize("component", [langchain.BGERerank, llama_index.BGERerank])
def test_a_budget_needs_something_that_counts(component: Any) -> None:
    with pytest.raises(ValueError, match="max_context_tokens needs count_tokens="):
        component(reranker=FakeReranker(), max_context_tokens=100)


@every_way
def test_a_counter_that_raises_is_named_whatever_on_error_says(keep: Keep) -> None:
    def broken(text: str) -> int:
        raise KeyError(text)

    with pytest.raises(ConfigurationError, match="count_tokens"):
        keep(TEXTS, max_context_tokens=9, count_tokens=broken, on_error="keep")


@pytest.mark.parametrize(
    ("make", "setting"), [(_llama_index, "similarity_top_k"), (_langchain, "search_kwargs")]
)
@pytest.mark.parametrize("top_n", [2, 3])
def test_candidates_that_cannot_be_enough_are_told_once(
    make: Callable[..., Any], setting: str, top_n: int, caplog: pytest.LogCaptureFixture
) -> None:
    reranker, given = make(TEXTS[:2], top_n=top_n)
    for _ in range(2):
        answer(reranker, given)
    (message,) = caplog.messages
    assert message.startswith(f"top_n={top_n} keeps all of 2 candidates")
    assert setting in message


@pytest.mark.parametrize("make", [_llama_index, _langchain])
def test_enough_candidates_are_not_told_of(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    reranker, given = make(TEXTS, top_n=3)
    answer(reranker, given)
    reranker, given = make(TEXTS, top_n=None)
    answer(reranker, given)
    assert caplog.messages == []


@pytest.mark.parametrize("make", [_llama_index, _langchain])
def test_scores_that_say_nothing_are_told_of(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    reranker, given = make(["Bread.", "Parliament.", "Cities.", "Mountains."], top_n=3)
    with caplog.at_level(logging.WARNING):
        answer(reranker, given)
    (message,) = caplog.messages
    assert message.startswith("the best 3 of 4 candidates all score 0.1")


def test_candidates_that_this_reranker_has_scored_are_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reranker, nodes = _llama_index(TEXTS, top_n=None)
    once = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert caplog.messages == []
    assert answer(reranker, once) == once
    reranker, documents = _langchain(TEXTS, top_n=None)
    answer(reranker, answer(reranker, documents))
    told = "the candidates came with this reranker's own scores: they are reranked twice"
    assert caplog.messages == [told, told]


def answer(reranker: Any, given: Any) -> Any:
    if isinstance(reranker, llama_index.BGERerank):
        return reranker.postprocess_nodes(given, query_str=QUERY)
    return reranker.compress_documents(given, QUERY)
