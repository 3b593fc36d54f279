"""The frameworks' own ways to evaluate find what this package's evaluation finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_reranker import FakeReranker
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bge_rerank_integrations import langchain, llama_index
from bge_rerank_integrations.evaluation import (
    Collection,
    Run,
    bm25,
    measure,
    read_beir,
    rerank,
)


@pytest.fixture
def collection(folder: Path) -> Collection:
    return read_beir(folder)


@pytest.fixture
def first_stage(collection: Collection) -> Run:
    run = bm25(collection)
    # an answer to every query: LlamaIndex's measures refuse to take none
    return Run(run.name, {**run.order, "q3": ["banana", "paris"]})


class Found(BaseRetriever):
    """A first stage as LlamaIndex sees it."""

    def __init__(self, collection: Collection, run: Run) -> None:
        super().__init__()
        self.collection = collection
        self.answers = {text: run.order[query] for query, text in collection.queries.items()}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=TextNode(id_=name, text=self.collection.documents[name]))
            for name in self.answers[query_bundle.query_str]
        ]


async def test_llama_index_retriever_evaluator(collection: Collection, first_stage: Run) -> None:
    evaluator = RetrieverEvaluator.from_metric_names(
        ["mrr", "recall", "ap"],
        retriever=Found(collection, first_stage),
        node_postprocessors=[llama_index.BGERerank(reranker=FakeReranker(), top_n=10)],
    )
    ours = rerank("fake", FakeReranker(), collection, first_stage)
    values = measure(collection.relevance, ours.order, [10])
    for query, text in collection.queries.items():
        result = await evaluator.aevaluate(text, list(collection.relevance[query]))
        assert result.retrieved_ids == ours.order[query]
        assert result.metric_vals_dict == {
            "mrr": pytest.approx(values["MRR@10"][query]),
            "recall": pytest.approx(values["recall@10"][query]),
            "ap": pytest.approx(values["MAP"][query]),
        }


async def test_a_langchain_chain_is_measured_by_the_ids_it_returns(
    collection: Collection, first_stage: Run
) -> None:
    names = {text: query for query, text in collection.queries.items()}

    def find(question: str) -> list[Document]:
        return [
            Document(id=name, page_content=collection.documents[name])
            for name in first_stage.order[names[question]]
        ]

    retriever = langchain.BGERerankRetriever(
        base_retriever=RunnableLambda(find), reranker=FakeReranker(), top_n=10
    )
    chain = retriever | RunnableLambda(lambda found: [document.id for document in found])
    answers = await chain.abatch(list(collection.queries.values()))
    chained = measure(collection.relevance, dict(zip(collection.queries, answers, strict=True)))
    ours = rerank("fake", FakeReranker(), collection, first_stage)
    assert chained == measure(collection.relevance, ours.order)
