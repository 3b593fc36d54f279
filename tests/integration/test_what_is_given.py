"""What callers hand over: lists that change meanwhile, other iterables, wrong objects."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from fake_reranker import FakeReranker
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode

from bge_rerank_integrations import InputError, RerankEngine, langchain, llama_index
from bge_rerank_integrations.errors import NonFiniteScoreError, RemoteError

QUERY = "why does a ship float?"
TEXTS = [
    "Bread is baked from flour, water, yeast and salt.",
    "A ship floats because it displaces its own weight of water.",
    "The parliament is elected every four years.",
]


class Slow(FakeReranker):
    """Waits until it is told to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def arerank(self, *given: Any) -> Any:
        self.asked.set()
        await self.go_on.wait()
        return await super().arerank(*given)


def _nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


def _documents() -> list[Document]:
    return [Document(page_content=text) for text in TEXTS]


def _array(items: list[Any]) -> Any:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


ITERABLES: dict[str, Callable[[list[Any]], Iterable[Any]]] = {
    "tuple": tuple,
    "deque": deque,
    "generator": lambda items: (item for item in items),
    "filter": lambda items: filter(None, items),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "array": _array,
}


# --- lists that change during a call -----------------------------------------------------------


@pytest.mark.parametrize("change", [list.reverse, list.clear, lambda it: it.append(it.pop(0))])
async def test_scores_go_to_the_nodes_that_were_given(change: Callable[[list[Any]], Any]) -> None:
    reranker = Slow()
    component = llama_index.BGERerank(reranker=reranker, top_n=1, prune=0.2)
    found = _nodes()
    call = asyncio.create_task(component.apostprocess_nodes(found, query_str=QUERY))
    await reranker.asked.wait()

    change(found)
    reranker.go_on.set()

    [best] = await call
    assert best.text == TEXTS[1]


@pytest.mark.parametrize("change", [list.reverse, list.clear, lambda it: it.append(it.pop(0))])
async def test_scores_go_to_the_documents_that_were_given(
    change: Callable[[list[Any]], Any],
) -> None:
    reranker = Slow()
    compressor = langchain.BGERerank(reranker=reranker, top_n=1)
    found = _documents()
    base: Any = RunnableLambda(lambda query: found)
    retriever = langchain.BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=1)
    calls = [
        asyncio.create_task(compressor.acompress_documents(found, QUERY)),
        asyncio.create_task(retriever.ainvoke(QUERY)),
        asyncio.create_task(compressor.arerank(found, QUERY)),  # type: ignore[arg-type]
    ]
    await reranker.asked.wait()
    await asyncio.sleep(0.05)

    change(found)
    reranker.go_on.set()

    [compressed], [retrieved], [raw] = await asyncio.gather(*calls)  # type: ignore[misc]
    assert compressed.page_content == retrieved.page_content == TEXTS[1]  # type: ignore[attr-defined]
    assert raw["index"] == 1  # type: ignore[index]


async def test_two_queries_share_one_cached_list() -> None:
    component = llama_index.BGERerank("tiny", top_n=None)
    cached = _nodes()

    async def answer(query: str) -> str:
        kept = await component.apostprocess_nodes(cached, query_str=query)
        cached.sort(key=lambda it: it.text)
        return kept[0].text

    queries = [QUERY, "what is bread made of?"] * 4
    best = await asyncio.gather(*map(answer, queries))

    assert best == [TEXTS[1], TEXTS[0]] * 4


# --- iterables that are no lists ---------------------------------------------------------------


@pytest.mark.parametrize("make", ITERABLES.values(), ids=ITERABLES)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_nodes_may_be_any_iterable(make: Any, is_async: bool) -> None:
    component = llama_index.BGERerank(reranker=FakeReranker(), top_n=1)
    failing = llama_index.BGERerank(reranker=FakeReranker(error=RemoteError("")), on_error="keep")

    async def run(component: Any) -> list[str]:
        given = make(_nodes())
        if is_async:
            return [it.text for it in await component.apostprocess_nodes(given, query_str=QUERY)]
        return [it.text for it in component.postprocess_nodes(given, query_str=QUERY)]

    assert await run(component) == [TEXTS[1]]
    assert await run(failing) == TEXTS


@pytest.mark.parametrize("make", ITERABLES.values(), ids=ITERABLES)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_documents_may_be_any_iterable(make: Any, is_async: bool) -> None:
    compressor = langchain.BGERerank(reranker=FakeReranker(), top_n=1)
    failing = langchain.BGERerank(reranker=FakeReranker(error=RemoteError("")), on_error="keep")

    async def run(compressor: Any) -> list[str]:
        given = make(_documents())
        if is_async:
            kept = await compressor.acompress_documents(given, QUERY)
        else:
            kept = compressor.compress_documents(given, QUERY)
        return [it.page_content for it in kept]

    assert await run(compressor) == [TEXTS[1]]
    assert await run(failing) == TEXTS
    assert [it["index"] for it in compressor.rerank(make(list(TEXTS)), QUERY)] == [1]
    base: Any = RunnableLambda(lambda query: make(_documents()))
    retriever = langchain.BGERerankRetriever(base_retriever=base, reranker=FakeReranker(), top_n=1)
    assert [it.page_content for it in retriever.invoke(QUERY)] == [TEXTS[1]]


def test_pairs_may_be_any_iterable() -> None:
    encoder = langchain.BGECrossEncoder(reranker=FakeReranker())

    assert len(encoder.score((QUERY, text) for text in TEXTS)) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", [None, [], (), iter(())])
def test_nothing_is_nothing(nothing: Any) -> None:
    reranker = FakeReranker()

    assert llama_index.BGERerank(reranker=reranker).postprocess_nodes(nothing, query_str="q") == []
    assert langchain.BGERerank(reranker=reranker).compress_documents(nothing, "q") == []
    base: Any = RunnableLambda(lambda query: nothing)
    assert langchain.BGERerankRetriever(base_retriever=base, reranker=reranker).invoke("q") == []
    assert reranker.calls == []


# --- wrong objects -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([(Document(page_content="a"), 0.5)], "tuple: similarity_search_with_score gives"),
        (["a text"], r"item 0 is of type str: Document\(page_content=...\)"),
        ([{"page_content": "a"}], "item 0 is of type dict"),
        ([Document(page_content="a"), None], "item 1 is of type NoneType"),
        (Document(page_content="a"), "got one Document: put it into a list"),
        ("a text", "got one str"),
        (3, "got one int"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "keep"])
async def test_what_is_no_document_is_named(
    given: Any, message: str, on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    compressor = langchain.BGERerank(reranker=FakeReranker(), on_error=on_error)
    base: Any = RunnableLambda(lambda query: given)
    retriever = langchain.BGERerankRetriever(
        base_retriever=base, reranker=FakeReranker(), on_error=on_error
    )

    with pytest.raises(InputError, match=f"documents must be .*{message}"):
        compressor.compress_documents(given, QUERY)
    with pytest.raises(InputError, match=message):
        await compressor.acompress_documents(given, QUERY)
    with pytest.raises(InputError, match=message):
        retriever.invoke(QUERY)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([TextNode(text="a")], r"type TextNode: NodeWithScore\(node=...\)"),
        ([NodeWithScore(node=TextNode(text="a")), "text"], "item 1 is of type str"),
        (NodeWithScore(node=TextNode(text="a")), "got one NodeWithScore: put it into a list"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "keep"])
async def test_what_is_no_node_with_score_is_named(given: Any, message: str, on_error: Any) -> None:
    component = llama_index.BGERerank(reranker=FakeReranker(), on_error=on_error)

    with pytest.raises(InputError, match=f"nodes must be .*{message}"):
        component.postprocess_nodes(given, query_str=QUERY)
    with pytest.raises(InputError, match=message):
        await component.apostprocess_nodes(given, query_str=QUERY)


@pytest.mark.parametrize("query", [None, 3, b"q", {"query": "q"}])
async def test_a_query_that_is_no_text_is_named(query: Any) -> None:
    compressor = langchain.BGERerank("tiny", on_error="keep")

    with pytest.raises(InputError, match=f"query must be a string, got {type(query).__name__}"):
        compressor.compress_documents(_documents(), query)
    with pytest.raises(InputError, match="query must be a string"):
        await compressor.acompress_documents(_documents(), query)


# --- documents without text, and those that cannot be scored -------------------------------------


def _images(count: int) -> list[NodeWithScore]:
    return [NodeWithScore(node=ImageNode(id_=f"i{n}"), score=0.9) for n in range(count)]


def test_images_found_first_do_not_push_every_text_out() -> None:
    given = [*_images(5), *_nodes()]

    def kept(top_n: int) -> list[str]:
        component = llama_index.BGERerank(reranker=FakeReranker(), top_n=top_n)
        answered = component.postprocess_nodes(given, query_str=QUERY)
        assert len(answered) == min(top_n, 8)
        return ["image" if isinstance(it.node, ImageNode) else it.text for it in answered]

    assert kept(1) == [TEXTS[1]]
    assert kept(3).count("image") == 1
    assert TEXTS[1] in kept(3)
    assert kept(6).count("image") == 3
    assert kept(8).count("image") == 5


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_bad_document_does_not_cost_the_others_their_ranking(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    too_long = "ships " * 600
    documents = _documents()
    documents[0:0] = [Document(page_content="\ud800 broken"), Document(page_content=too_long)]
    compressor = langchain.BGERerank(
        "tiny", on_error="keep", long_documents="refuse", top_n=4, prune=0.1
    )

    if is_async:
        kept = await compressor.acompress_documents(documents, QUERY)
    else:
        kept = compressor.compress_documents(documents, QUERY)

    scores = [it.metadata.get("relevance_score") for it in kept]
    assert [it.page_content for it in kept[:2]] == ["\ud800 broken", too_long]
    assert scores[:2] == [None, None]
    assert kept[2].page_content == TEXTS[1]
    assert scores[2] > 0.9
    messages = [record.getMessage() for record in caplog.records]
    assert ["document 0 is kept" in messages[0], "document 1 is kept" in messages[1]] == [True] * 2


def test_an_error_names_the_place_in_the_list_given() -> None:
    documents = [Document(page_content=""), *_documents(), Document(page_content="\ud800")]

    with pytest.raises(InputError, match="document 4 holds a lone surrogate") as caught:
        langchain.BGERerank("tiny").compress_documents(documents, QUERY)
    assert caught.value.index == 4

    error = NonFiniteScoreError(1, float("nan"))
    with pytest.raises(NonFiniteScoreError, match="document 2") as failed:
        langchain.BGERerank(reranker=FakeReranker(error=error)).compress_documents(documents, QUERY)
    assert failed.value.index == 2


# --- what was not read -------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_what_was_not_read_is_told_once_and_in_the_metadata(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    long = TEXTS[1] + " More of it." * 40
    query = "tell me more " * 40 + QUERY
    texts = [TEXTS[0], long]
    compressor = langchain.BGERerank("tiny", max_length=64, top_n=None)
    component = llama_index.BGERerank("tiny", max_length=64, top_n=None)

    for _ in range(2):
        documents = [Document(page_content=text, metadata={"page": 1}) for text in texts]
        nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
        if is_async:
            kept = await compressor.acompress_documents(documents, query)
            ranked = await component.apostprocess_nodes(nodes, query_str=query)
        else:
            kept = compressor.compress_documents(documents, query)
            ranked = component.postprocess_nodes(nodes, query_str=query)
        for it in kept:
            assert it.metadata.get("truncated") is (True if it.page_content == long else None)
        for found in ranked:
            assert found.node.metadata == ({"truncated": True} if found.text == long else {})
            assert "truncated" not in found.node.get_content("llm")  # type: ignore[arg-type]
            assert "truncated" not in found.node.get_content("embed")  # type: ignore[arg-type]
        assert "truncated" not in nodes[1].node.metadata

    messages = sorted(it.getMessage() for it in caplog.records)
    assert len(messages) == 4
    assert all(message.startswith("the end of the query was not read") for message in messages[:2])
    assert all("of 2 documents were not read" in message for message in messages[2:])


def test_a_mark_of_another_reranker_does_not_stay() -> None:
    document = Document(page_content=TEXTS[1], metadata={"truncated": True})
    node = TextNode(text=TEXTS[1], metadata={"truncated": True})

    [kept] = langchain.BGERerank("tiny").compress_documents([document], QUERY)
    [ranked] = llama_index.BGERerank("tiny").postprocess_nodes(
        [NodeWithScore(node=node)], query_str=QUERY
    )

    assert kept.metadata["truncated"] is ranked.node.metadata["truncated"] is False
    assert document.metadata == node.metadata == {"truncated": True}


# --- a score that is not ours ------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_foreign_score_never_passes_for_ours(is_async: bool) -> None:
    foreign = [
        Document(page_content=text, metadata={"relevance_score": 0.87, "page": 1}) for text in TEXTS
    ]
    image = Document(page_content="", metadata={"relevance_score": 0.99, "page": 1})
    failing = langchain.BGERerank(reranker=FakeReranker(error=RemoteError("")), on_error="keep")
    working = langchain.BGERerank(reranker=FakeReranker(), top_n=None)

    async def run(compressor: Any, documents: list[Document]) -> list[Document]:
        if is_async:
            return await compressor.acompress_documents(documents, QUERY)  # type: ignore[no-any-return]
        return compressor.compress_documents(documents, QUERY)  # type: ignore[no-any-return]

    assert all(it.metadata == {"page": 1} for it in await run(failing, foreign))
    kept = await run(working, [image, *foreign])
    assert kept[0].metadata == {"page": 1}
    assert all(it.metadata["relevance_score"] != 0.87 for it in kept[1:])
    base: Any = RunnableLambda(lambda query: foreign)
    retriever = langchain.BGERerankRetriever(
        base_retriever=base, reranker=FakeReranker(error=RemoteError("")), on_error="keep"
    )
    assert all(it.metadata == {"page": 1} for it in retriever.invoke(QUERY))
    assert foreign[0].metadata["relevance_score"] == 0.87


def test_a_retrieval_score_that_is_no_number_is_none() -> None:
    component = llama_index.BGERerank(reranker=FakeReranker(), keep_retrieval_score=True)
    node = NodeWithScore(node=TextNode(text=TEXTS[1]), score=float("nan"))

    [kept] = component.postprocess_nodes([node], query_str=QUERY)

    assert kept.node.metadata == {"retrieval_score": None, "retrieval_rank": 1}


@pytest.mark.parametrize("top_n", [3, 10**30, 2**63])
def test_any_number_may_be_kept(top_n: int) -> None:
    for duplicates in (None, True):
        settings: dict[str, Any] = {"top_n": top_n, "drop_duplicates": duplicates}
        component = llama_index.BGERerank("tiny", **settings)
        compressor = langchain.BGERerank("tiny", **settings)
        assert len(component.postprocess_nodes(_nodes(), query_str=QUERY)) == 3
        assert len(compressor.compress_documents(_documents(), QUERY)) == 3
        assert len(compressor.rerank(TEXTS, QUERY)) == 3
    assert len(RerankEngine.shared("tiny").rerank(QUERY, TEXTS, top_n=top_n)) == 3
