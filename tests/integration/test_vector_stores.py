"""Both integrations behind a real vector store: Qdrant in its local mode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest
from fake_reranker import FakeReranker
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import ExactMatchFilter, MetadataFilters
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexQdrant
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.models import Distance, FieldCondition, Filter, MatchValue, VectorParams

from bge_rerank_integrations.langchain import BGERerank as LangChainRerank
from bge_rerank_integrations.langchain import BGERerankRetriever
from bge_rerank_integrations.llama_index import BGERerank as LlamaIndexRerank

QUERY = "how do ships float"
# what the reranker puts first is not what has most of the query's words for its length
TEXTS = [
    "ships float",
    "bread and butter",
    "water carries what is light, and so how ships of iron do float is asked",
    "a ship",
]
BEST = [TEXTS[2], TEXTS[0]]
IDS = [str(UUID(int=place)) for place in range(len(TEXTS))]
SIZE = 64
COLLECTION = "texts"
VECTORS = VectorParams(size=SIZE, distance=Distance.COSINE)


def vector(text: str) -> list[float]:
    """One for each word, at a place that its letters choose."""
    places = {crc32(word.strip(",").encode()) % SIZE for word in text.lower().split()}
    return [float(place in places) for place in range(SIZE)]


class LangChainWords(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return vector(text)


class LlamaIndexWords(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector(query)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    client.create_collection(COLLECTION, VECTORS)
    yield client
    client.close()


@pytest.fixture
async def async_client() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    await client.create_collection(COLLECTION, VECTORS)
    yield client
    await client.close()


# --- LlamaIndex --------------------------------------------------------------------------------


def index_over(store: LlamaIndexQdrant, *, use_async: bool = False) -> VectorStoreIndex:
    nodes = [
        TextNode(id_=key, text=text, metadata={"place": place})
        for place, (key, text) in enumerate(zip(IDS, TEXTS, strict=True))
    ]
    for node in nodes:
        node.excluded_embed_metadata_keys = ["place"]
    return VectorStoreIndex(
        nodes,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=LlamaIndexWords(),
        use_async=use_async,
    )


def engine_of(index: VectorStoreIndex, reranker: FakeReranker, **options: Any) -> Any:
    postprocessor = LlamaIndexRerank(reranker=reranker, top_n=2)
    return index.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[postprocessor], **options
    )


def test_the_store_alone_has_another_order(client: QdrantClient) -> None:
    index = index_over(LlamaIndexQdrant(COLLECTION, client=client))
    retrieved = index.as_retriever(similarity_top_k=4).retrieve(QUERY)
    assert [found.text for found in retrieved[:2]] == BEST[::-1]


def test_a_query_engine_over_a_store(client: QdrantClient, reranker: FakeReranker) -> None:
    index = index_over(LlamaIndexQdrant(COLLECTION, client=client))
    response = engine_of(index, reranker).query(QUERY)
    assert [found.text for found in response.source_nodes] == BEST
    assert [found.node_id for found in response.source_nodes] == [IDS[2], IDS[0]]
    assert [found.metadata for found in response.source_nodes] == [{"place": 2}, {"place": 0}]
    assert len(reranker.calls[0].documents) == 4


async def test_a_query_engine_awaits_a_store(
    async_client: AsyncQdrantClient, reranker: FakeReranker
) -> None:
    store = LlamaIndexQdrant(COLLECTION, aclient=async_client)
    index = VectorStoreIndex.from_vector_store(store, embed_model=LlamaIndexWords())
    nodes = [TextNode(id_=key, text=text) for key, text in zip(IDS, TEXTS, strict=True)]
    await index.ainsert_nodes(nodes)
    response = await engine_of(index, reranker).aquery(QUERY)
    assert [found.node_id for found in response.source_nodes] == [IDS[2], IDS[0]]
    assert [call.method for call in reranker.calls] == ["arerank"]


def test_a_filter_of_the_store_limits_what_is_reranked(
    client: QdrantClient, reranker: FakeReranker
) -> None:
    index = index_over(LlamaIndexQdrant(COLLECTION, client=client))
    only = MetadataFilters(filters=[ExactMatchFilter(key="place", value=3)])
    response = engine_of(index, reranker, filters=only).query(QUERY)
    assert reranker.calls[0].documents == (TEXTS[3],)
    assert [found.node_id for found in response.source_nodes] == [IDS[3]]


# --- LangChain ---------------------------------------------------------------------------------


@pytest.fixture
def store(client: QdrantClient) -> QdrantVectorStore:
    store = QdrantVectorStore(client, COLLECTION, LangChainWords())
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    assert store.add_documents(documents, ids=IDS) == IDS
    return store


def assert_best(found: list[Document]) -> None:
    assert [document.page_content for document in found] == BEST
    # the store hands its ids over in the metadata
    assert [document.metadata["_id"] for document in found] == [IDS[2], IDS[0]]
    assert [document.metadata["place"] for document in found] == [2, 0]
    first, second = (document.metadata["relevance_score"] for document in found)
    assert first > second


def test_a_retriever_over_a_store(store: QdrantVectorStore, reranker: FakeReranker) -> None:
    base = store.as_retriever(search_kwargs={"k": 4})
    assert [document.page_content for document in base.invoke(QUERY)[:2]] == BEST[::-1]
    assert_best(BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=2).invoke(QUERY))


async def test_a_retriever_awaits_a_store(store: QdrantVectorStore, reranker: FakeReranker) -> None:
    base = store.as_retriever(search_kwargs={"k": 4})
    retriever = BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=2)
    assert_best(await retriever.ainvoke(QUERY))
    assert [call.method for call in reranker.calls] == ["arerank"]


async def test_the_compressor_over_a_store(
    store: QdrantVectorStore, reranker: FakeReranker
) -> None:
    compressing = ContextualCompressionRetriever(
        base_compressor=LangChainRerank(reranker=reranker, top_n=2),
        base_retriever=store.as_retriever(search_kwargs={"k": 4}),
    )
    assert_best(compressing.invoke(QUERY))
    assert_best(await compressing.ainvoke(QUERY))


def test_arguments_of_a_call_reach_the_store(
    store: QdrantVectorStore, reranker: FakeReranker
) -> None:
    base = store.as_retriever(search_kwargs={"k": 4})
    retriever = BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=2)
    only = Filter(must=[FieldCondition(key="metadata.place", match=MatchValue(value=3))])
    assert [document.page_content for document in retriever.invoke(QUERY, filter=only)] == [
        TEXTS[3]
    ]


def test_the_store_keeps_what_it_has(store: QdrantVectorStore, reranker: FakeReranker) -> None:
    base = store.as_retriever(search_kwargs={"k": 4})
    before = base.invoke(QUERY)
    BGERerankRetriever(base_retriever=base, reranker=reranker, prune=0.5).invoke(QUERY)
    assert base.invoke(QUERY) == before


def test_a_folder_is_opened_again(tmp_path: Path, reranker: FakeReranker) -> None:
    client = QdrantClient(path=str(tmp_path))
    client.create_collection(COLLECTION, VECTORS)
    QdrantVectorStore(client, COLLECTION, LangChainWords()).add_texts(TEXTS, ids=IDS)
    client.close()
    client = QdrantClient(path=str(tmp_path))
    base = QdrantVectorStore(client, COLLECTION, LangChainWords()).as_retriever()
    retriever = BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=2)
    assert [document.metadata["_id"] for document in retriever.invoke(QUERY)] == [IDS[2], IDS[0]]
    client.close()
