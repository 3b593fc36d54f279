"""The postprocessor inside LlamaIndex's own engines, with a mock LLM and mock embeddings."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from fake_reranker import FakeReranker
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import TextNode
from llama_index.core.tools import RetrieverTool

from bge_rerank_integrations.llama_index import BGERerank

QUERY = "how do ships float"
TEXTS = {
    "bread": "bread and butter",
    "ships": "ships float on water",
    "answer": "how do ships float explained",
    "sail": "a ship under sail",
}


@pytest.fixture
def retriever() -> BaseRetriever:
    nodes = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    return index.as_retriever(similarity_top_k=len(nodes))


@pytest.fixture
def postprocessor(reranker: FakeReranker) -> BGERerank:
    return BGERerank(reranker=reranker, top_n=2)


@pytest.fixture
def debug() -> LlamaDebugHandler:
    return LlamaDebugHandler(print_trace_on_end=False)


def _query_engine(
    retriever: BaseRetriever, postprocessor: BGERerank, **settings: Any
) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=[postprocessor], **settings
    )


def _sources(response: Any) -> list[str]:
    return [scored.node.node_id for scored in response.source_nodes]


def _methods(reranker: FakeReranker) -> list[tuple[str, str]]:
    return [(call.method, call.query) for call in reranker.calls]


async def test_a_query_engine_answers_from_the_best_nodes(
    retriever: BaseRetriever,
    postprocessor: BGERerank,
    reranker: FakeReranker,
    debug: LlamaDebugHandler,
) -> None:
    engine = _query_engine(retriever, postprocessor, callback_manager=CallbackManager([debug]))

    response = await asyncio.to_thread(engine.query, QUERY)
    aresponse = await engine.aquery(QUERY)

    assert _sources(response) == _sources(aresponse) == ["answer", "ships"]
    assert "bread" not in str(response)
    assert _methods(reranker) == [("rerank", QUERY), ("arerank", QUERY)]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


async def test_a_streamed_answer_is_made_of_pruned_nodes(reranker: FakeReranker) -> None:
    """The mock of an LLM answers with its prompt."""
    postprocessor = BGERerank(reranker=reranker, top_n=1, prune=0.8)
    text = "how do ships float? Of old. Jam. Bread and butter."
    index = VectorStoreIndex([TextNode(text=text)], embed_model=MockEmbedding(embed_dim=4))
    engine = _query_engine(index.as_retriever(), postprocessor, streaming=True)

    response: Any = await asyncio.to_thread(engine.query, QUERY)
    streamed = "".join(response.response_gen)
    aresponse: Any = await engine.aquery(QUERY)
    astreamed = "".join([part async for part in aresponse.async_response_gen()])

    for answer in (streamed, astreamed):
        assert "how do ships float?" in answer
        assert "butter" not in answer


async def test_parallel_queries_share_one_postprocessor(
    retriever: BaseRetriever, postprocessor: BGERerank, reranker: FakeReranker
) -> None:
    engine = _query_engine(retriever, postprocessor)
    queries = ["how do ships float", "bread and butter", "a ship under sail"] * 4

    responses = await asyncio.gather(*map(engine.aquery, queries))

    assert [_sources(response)[0] for response in responses] == ["answer", "bread", "sail"] * 4
    assert {call.thread for call in reranker.calls} == {threading.get_ident()}


def test_an_index_builds_the_engine_with_it(postprocessor: BGERerank) -> None:
    nodes = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))

    engine = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[postprocessor]
    )

    assert _sources(engine.query(QUERY)) == ["answer", "ships"]


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
async def test_chat_engines_rerank(
    retriever: BaseRetriever, postprocessor: BGERerank, reranker: FakeReranker, kind: Any
) -> None:
    def engine() -> Any:
        return kind.from_defaults(
            retriever,
            llm=MockLLM(),
            # the default memory leaves its database open
            memory=ChatMemoryBuffer.from_defaults(token_limit=1000),
            node_postprocessors=[postprocessor],
        )

    response = await asyncio.to_thread(engine().chat, QUERY)
    aresponse = await engine().achat(QUERY)

    assert _sources(response) == _sources(aresponse) == ["answer", "ships"]
    # older versions of LlamaIndex call the sync path from here
    assert [call.query for call in reranker.calls] == [QUERY, QUERY]


async def test_a_retriever_tool_reranks(retriever: BaseRetriever, postprocessor: BGERerank) -> None:
    tool = RetrieverTool.from_defaults(
        retriever, node_postprocessors=[postprocessor], name="sea", description="about the sea"
    )

    output = tool.call(QUERY)
    aoutput = await tool.acall(QUERY)

    assert output.content == aoutput.content
    assert "bread" not in output.content


async def test_a_retriever_evaluator_sees_the_reranked_order(
    retriever: BaseRetriever, postprocessor: BGERerank
) -> None:
    evaluator = RetrieverEvaluator.from_metric_names(
        ["mrr", "hit_rate"], retriever=retriever, node_postprocessors=[postprocessor]
    )

    result = await evaluator.aevaluate(query=QUERY, expected_ids=["answer"])

    assert result.retrieved_ids == ["answer", "ships"]
    assert result.metric_vals_dict == {"mrr": 1.0, "hit_rate": 1.0}
