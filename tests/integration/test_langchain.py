"""The LangChain compressor, retriever and cross encoder, called as LangChain calls them."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from fake_reranker import FakeReranker
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import (
    CrossEncoderReranker,
    DocumentCompressorPipeline,
)
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from langchain_core.load import dumps
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_core.tracers import Run
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from pydantic import ValidationError

from bge_rerank_integrations import ConfigurationError, InputError, RerankEngine
from bge_rerank_integrations.langchain import BGECrossEncoder, BGERerank, BGERerankRetriever
from integration.missing import import_without

QUERY = "how do ships float"

Compress = Callable[..., Awaitable[Sequence[Document]]]
Invoke = Callable[..., Awaitable[Any]]


async def _sync(compressor: BaseDocumentCompressor, *args: Any, **kwargs: Any) -> Any:
    return compressor.compress_documents(*args, **kwargs)


async def _async(compressor: BaseDocumentCompressor, *args: Any, **kwargs: Any) -> Any:
    return await compressor.acompress_documents(*args, **kwargs)


async def _invoke(runnable: Any, *args: Any, **kwargs: Any) -> Any:
    return runnable.invoke(*args, **kwargs)


async def _ainvoke(runnable: Any, *args: Any, **kwargs: Any) -> Any:
    return await runnable.ainvoke(*args, **kwargs)


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def compress(request: pytest.FixtureRequest) -> Compress:
    """Every test with this fixture runs on both of a compressor's paths."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[_invoke, _ainvoke], ids=["sync", "async"])
def invoke(request: pytest.FixtureRequest) -> Invoke:
    """Every test with this fixture runs on both of a runnable's paths."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def documents() -> list[Document]:
    texts = ["bread and butter", "ships float on water", "how do ships float", "a ship"]
    return [
        Document(id=f"d{place}", page_content=text, metadata={"place": place})
        for place, text in enumerate(texts)
    ]


class ListRetriever(BaseRetriever):
    """Answers every query with the first ``k`` of the same documents."""

    documents: list[Document]

    def _get_relevant_documents(
        self, query: str, *, run_manager: Any, k: int | None = None
    ) -> list[Document]:
        return self.documents[:k]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, k: int | None = None
    ) -> list[Document]:
        return self.documents[:k]


@pytest.fixture
def base(documents: list[Document]) -> ListRetriever:
    return ListRetriever(documents=documents)


@pytest.fixture
def runs() -> RunCollectorCallbackHandler:
    return RunCollectorCallbackHandler()


def _ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]


def _tree(run: Run) -> Any:
    """The names of a run and of those inside it."""
    return {run.name: [_tree(child) for child in run.child_runs]} if run.child_runs else run.name


# --- the compressor: what comes back -----------------------------------------------------------


def test_it_is_a_document_compressor() -> None:
    assert issubclass(BGERerank, BaseDocumentCompressor)


async def test_the_best_documents_come_first_with_their_scores(
    compress: Compress, reranker: FakeReranker, documents: list[Document]
) -> None:
    kept = await compress(BGERerank(reranker=reranker, top_n=2), documents, QUERY)

    assert kept == [
        Document(
            id="d2",
            page_content="how do ships float",
            metadata={"place": 2, "relevance_score": pytest.approx(0.8808, abs=1e-4)},
        ),
        Document(
            id="d1",
            page_content="ships float on water",
            metadata={"place": 1, "relevance_score": 0.5},
        ),
    ]
    assert all(type(document.metadata["relevance_score"]) is float for document in kept)


async def test_three_documents_are_kept_unless_told(
    compress: Compress, reranker: FakeReranker, documents: list[Document]
) -> None:
    assert len(await compress(BGERerank(reranker=reranker), documents, QUERY)) == 3


@pytest.mark.parametrize("top_n", [1, 4, 8, None])
async def test_top_n_is_clamped_to_the_documents(
    compress: Compress, reranker: FakeReranker, documents: list[Document], top_n: int | None
) -> None:
    kept = await compress(BGERerank(reranker=reranker, top_n=top_n), documents, QUERY)

    scores = [document.metadata["relevance_score"] for document in kept]
    assert len(kept) == min(4, top_n or 4)
    assert scores == sorted(scores, reverse=True)


async def test_a_threshold_is_on_the_reported_scale(
    compress: Compress, reranker: FakeReranker, documents: list[Document]
) -> None:
    compressor = BGERerank(reranker=reranker, top_n=None, score_threshold=0.5)

    assert _ids(await compress(compressor, documents, QUERY)) == ["d2", "d1"]


async def test_equal_scores_keep_the_retrieval_order(
    compress: Compress, reranker: FakeReranker
) -> None:
    documents = [Document(page_content=text) for text in ["ccc", "aaa", "bbb"]]

    kept = await compress(BGERerank(reranker=reranker), documents, "query")

    assert [document.page_content for document in kept] == ["ccc", "aaa", "bbb"]


async def test_no_documents_ask_nothing(
    compress: Compress, reranker: FakeReranker, runs: RunCollectorCallbackHandler
) -> None:
    assert await compress(BGERerank(reranker=reranker), [], QUERY, callbacks=[runs]) == []
    assert (reranker.calls, runs.traced_runs) == ([], [])


async def test_any_sequence_of_documents_is_taken(
    compress: Compress, reranker: FakeReranker, documents: list[Document]
) -> None:
    assert _ids(await compress(BGERerank(reranker=reranker, top_n=1), tuple(documents), QUERY)) == [
        "d2"
    ]


async def test_the_documents_given_stay_as_they_are(
    compress: Compress, reranker: FakeReranker, documents: list[Document]
) -> None:
    documents[2].metadata["relevance_score"] = "stale"
    before = copy.deepcopy(documents)
    order = list(documents)

    kept = await compress(BGERerank(reranker=reranker), documents, QUERY)
    kept[0].metadata["place"] = "changed"

    assert kept[0].metadata["relevance_score"] == pytest.approx(0.8808, abs=1e-4)
    assert documents == before
    assert all(a is b for a, b in zip(documents, order, strict=True))


async def test_the_documents_kept_serialize(compress: Compress, documents: list[Document]) -> None:
    class NumpyReranker(FakeReranker):
        def _answer(self, *args: Any) -> Any:
            ranking = super()._answer(*args)
            for document in ranking:
                object.__setattr__(document, "score", np.float32(document.score))
            return ranking

    [kept] = await compress(BGERerank(reranker=NumpyReranker(), top_n=1), documents, QUERY)

    assert json.loads(kept.model_dump_json())["metadata"]["relevance_score"] > 0.5
    assert json.loads(dumps(kept))["kwargs"]["metadata"]["relevance_score"] > 0.5


async def test_a_subclass_of_document_stays_one(compress: Compress, reranker: FakeReranker) -> None:
    class Page(Document):
        number: int

    page = Page(page_content=QUERY, number=7)

    [kept] = await compress(BGERerank(reranker=reranker), [page], QUERY)

    assert isinstance(kept, Page)
    assert kept.number == 7


async def test_the_async_path_is_native(reranker: FakeReranker, documents: list[Document]) -> None:
    await BGERerank(reranker=reranker).acompress_documents(documents, QUERY)

    assert [(call.method, call.thread) for call in reranker.calls] == [
        ("arerank", threading.get_ident())
    ]


async def test_the_async_path_prunes_natively(
    reranker: FakeReranker, documents: list[Document]
) -> None:
    await BGERerank(reranker=reranker, prune=0.1).acompress_documents(documents, QUERY)

    assert len(reranker.scored) == reranker.ascored == 1


async def test_parallel_calls_share_one_compressor(
    reranker: FakeReranker, documents: list[Document]
) -> None:
    compressor = BGERerank(reranker=reranker, top_n=1)
    queries = [document.page_content for document in documents] * 4

    answers = await asyncio.gather(
        *(compressor.acompress_documents(documents, query) for query in queries)
    )

    assert [kept[0].page_content for kept in answers] == queries


# --- pruning -----------------------------------------------------------------------------------

LONG = "How do ships float? Bread and butter.\n\nWater holds ships that float. Nothing else."


async def test_pruning_keeps_the_sentences_that_matter(compress: Compress) -> None:
    reranker = FakeReranker()
    given = [Document(id="a", page_content=LONG, metadata={"place": 1}), Document("bread")]
    before = copy.deepcopy(given)

    kept = await compress(BGERerank(reranker=reranker, top_n=1, prune=0.8), given, QUERY)

    [document] = kept
    assert document.id == "a"
    # the neighbor of the best sentence stays, though it scores 0.66
    assert document.page_content == "How do ships float? Bread and butter."
    score = reranker.score(QUERY, [LONG])[0]
    assert document.metadata == {"place": 1, "relevance_score": score, "pruned_from": LONG}
    assert given == before


async def test_only_kept_documents_are_split(compress: Compress) -> None:
    reranker = FakeReranker()
    given = [Document("Bread. Butter."), Document("Ships float. Really."), Document("Ships.")]

    await compress(BGERerank(reranker=reranker, top_n=2, prune=0.1), given, QUERY)

    assert reranker.scored == [
        ("Ships float.", "Ships float. Really.", "Really.", "Ships.", "Ships.")
    ]


@pytest.mark.parametrize("settings", [{}, {"prune": 0}, {"prune": 0.0, "prune_mark": "…"}])
async def test_without_a_threshold_above_0_nothing_is_cut(
    compress: Compress, settings: dict[str, Any]
) -> None:
    [kept] = await compress(BGERerank(reranker=FakeReranker(), **settings), [Document(LONG)], QUERY)

    assert kept.page_content == LONG
    assert kept.metadata.keys() == {"relevance_score"}


async def test_a_share_of_the_best_sentence_is_a_threshold_too(compress: Compress) -> None:
    compressor = BGERerank(reranker=FakeReranker(), prune_share=0.7)

    [kept] = await compress(compressor, [Document(LONG)], QUERY)

    # 0.88 is the best, and 0.66, 0.5 and 0.24 the others
    assert kept.page_content == "How do ships float? Bread and butter."


async def test_what_is_cut_is_marked_where_it_is_asked_for(compress: Compress) -> None:
    compressor = BGERerank(reranker=FakeReranker(), prune=0.8, prune_mark="[…]")

    [kept] = await compress(compressor, [Document(LONG)], QUERY)

    assert kept.page_content == "How do ships float? Bread and butter.\n\n[…]"


async def test_nothing_kept_is_nothing_pruned(compress: Compress) -> None:
    compressor = BGERerank(reranker=FakeReranker(), score_threshold=0.99, prune=0.5)

    assert list(await compress(compressor, [Document(LONG)], QUERY)) == []


async def test_a_reranker_that_cannot_highlight_cannot_prune(compress: Compress) -> None:
    class Plain:
        model = "plain"
        rerank, arerank = FakeReranker().rerank, FakeReranker().arerank

    with pytest.raises(ValidationError, match=r"prune needs .* highlight\(\) .*, got Plain"):
        await compress(BGERerank(reranker=Plain(), prune=0.5), [Document(LONG)], QUERY)
    assert await compress(BGERerank(reranker=Plain()), [Document(LONG)], QUERY)


async def test_the_retriever_prunes(invoke: Invoke) -> None:
    base = ListRetriever(documents=[Document(LONG)])
    retriever = BGERerankRetriever(base_retriever=base, reranker=FakeReranker(), prune=0.8)

    [pruned] = await invoke(retriever, QUERY)
    [whole] = await invoke(retriever, QUERY, prune=None)

    assert (pruned.metadata["pruned_from"], whole.page_content) == (LONG, LONG)


async def test_a_streaming_chain_reads_pruned_documents() -> None:
    base = ListRetriever(documents=[Document(LONG)])
    retriever = BGERerankRetriever(base_retriever=base, reranker=FakeReranker(), prune=0.8)
    chain = retriever | (lambda documents: documents[0].page_content)

    pruned = ["How do ships float? Bread and butter."]
    assert list(chain.stream(QUERY)) == pruned
    assert [part async for part in chain.astream(QUERY)] == pruned


# --- the compressor: raw results ---------------------------------------------------------------


async def _rerank(compressor: BGERerank, *args: Any, **kwargs: Any) -> Any:
    return compressor.rerank(*args, **kwargs)


async def _arerank(compressor: BGERerank, *args: Any, **kwargs: Any) -> Any:
    return await compressor.arerank(*args, **kwargs)


@pytest.mark.parametrize("rerank", [_rerank, _arerank], ids=["sync", "async"])
async def test_raw_results_are_those_of_coheres_compressor(
    rerank: Invoke, reranker: FakeReranker, documents: list[Document]
) -> None:
    compressor = BGERerank(reranker=reranker, top_n=1)
    mixed = [documents[0].page_content, *documents[1:]]

    assert await rerank(compressor, mixed, QUERY) == [
        {"index": 2, "relevance_score": pytest.approx(0.8808, abs=1e-4)}
    ]
    assert [found["index"] for found in await rerank(compressor, mixed, QUERY, top_n=2)] == [2, 1]
    assert len(await rerank(compressor, mixed, QUERY, top_n=None)) == 4
    assert await rerank(compressor, [], QUERY) == []
    # scores of 0.88, 0.73, 0.27 and 0.12
    compressor.score_threshold = 0.5
    assert [found["index"] for found in await rerank(compressor, mixed, QUERY, top_n=None)] == [
        2,
        1,
    ]


async def test_documents_without_text_keep_their_places(
    compress: Compress, reranker: FakeReranker
) -> None:
    texts = ["bread", " \n", "ships float", ""]
    documents = [Document(id=text, page_content=text) for text in texts]

    kept = await compress(BGERerank(reranker=reranker), documents, QUERY)

    assert reranker.calls[0].documents == ("bread", "ships float")
    assert _ids(kept) == ["ships float", " \n", "bread"]
    assert ["relevance_score" in document.metadata for document in kept] == [True, False, True]


async def test_metadata_is_read_where_it_is_asked_for(
    compress: Compress, reranker: FakeReranker
) -> None:
    documents = [
        Document(page_content="text", metadata={"title": "How ships float", "page": 7, "url": "u"}),
        Document(page_content="other text", metadata={"page": 8}),
        Document(page_content="third text"),
    ]
    compressor = BGERerank(reranker=reranker, metadata_fields=["title", "page"], top_n=1)

    [kept] = await compress(compressor, documents, QUERY)

    read = ("title: How ships float\npage: 7\n\ntext", "page: 8\n\nother text", "third text")
    assert reranker.calls[0].documents == read
    assert kept.page_content == "text"
    compressor.rerank(documents, QUERY)
    assert reranker.calls[1].documents == read
    with pytest.raises(ValidationError, match="metadata_fields"):
        BGERerank(reranker=reranker, metadata_fields="title")


async def test_a_retriever_reads_metadata_too(invoke: Invoke, reranker: FakeReranker) -> None:
    base = ListRetriever(documents=[Document(page_content="text", metadata={"page": 7})])

    await invoke(
        BGERerankRetriever(base_retriever=base, reranker=reranker, metadata_fields=("page",)), QUERY
    )

    assert reranker.calls[0].documents == ("page: 7\n\ntext",)


# --- the compressor: traces --------------------------------------------------------------------


async def test_a_call_is_a_run_of_its_caller(
    compress: Compress,
    reranker: FakeReranker,
    documents: list[Document],
    runs: RunCollectorCallbackHandler,
) -> None:
    compressor = BGERerank(reranker=reranker, top_n=2)

    kept = await compress(compressor, documents, QUERY, callbacks=[runs])

    [run] = runs.traced_runs
    assert (run.name, run.run_type, run.error) == ("BGERerank", "chain", None)
    assert run.inputs == {"query": QUERY, "documents": documents}
    assert run.outputs == {"output": kept}
    assert run.metadata == {"model": "fake", "top_n": 2}


async def test_a_failing_reranker_closes_the_run_with_its_error(
    compress: Compress, documents: list[Document], runs: RunCollectorCallbackHandler
) -> None:
    error = RuntimeError("the card fell off the bus")

    with pytest.raises(RuntimeError, match="fell off") as raised:
        await compress(
            BGERerank(reranker=FakeReranker(error=error)), documents, QUERY, callbacks=[runs]
        )

    assert raised.value is error
    [run] = runs.traced_runs
    assert "fell off" in (run.error or "")
    assert run.end_time is not None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks take no context before Python 3.11")
async def test_inside_a_runnable_it_finds_its_place_in_the_trace(
    invoke: Invoke,
    reranker: FakeReranker,
    documents: list[Document],
    runs: RunCollectorCallbackHandler,
) -> None:
    compressor = BGERerank(reranker=reranker)

    def rerank(query: str) -> Any:
        return compressor.compress_documents(documents, query)

    async def arerank(query: str) -> Any:
        return await compressor.acompress_documents(documents, query)

    await invoke(RunnableLambda(rerank, afunc=arerank, name="mine"), QUERY, {"callbacks": [runs]})

    assert [_tree(run) for run in runs.traced_runs] == [{"mine": ["BGERerank"]}]


# --- the compressor: in LangChain's own components ---------------------------------------------


async def test_a_compression_retriever_reranks(
    invoke: Invoke,
    reranker: FakeReranker,
    base: ListRetriever,
    runs: RunCollectorCallbackHandler,
) -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=BGERerank(reranker=reranker, top_n=2), base_retriever=base
    )

    kept = await invoke(retriever, QUERY, {"callbacks": [runs]})

    assert _ids(kept) == ["d2", "d1"]
    [run] = runs.traced_runs
    assert _tree(run) == {"ContextualCompressionRetriever": ["ListRetriever", "BGERerank"]}


class Lowercase(BaseDocumentTransformer):
    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Any:
        return [Document(id=it.id, page_content=it.page_content.lower()) for it in documents]

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Any:
        return self.transform_documents(documents)


async def test_a_compressor_pipeline_reranks(
    compress: Compress,
    reranker: FakeReranker,
    documents: list[Document],
    runs: RunCollectorCallbackHandler,
) -> None:
    wide, narrow = (BGERerank(reranker=reranker, top_n=top_n) for top_n in (3, 1))
    pipeline = DocumentCompressorPipeline(transformers=[wide, Lowercase(), narrow])

    kept = await compress(pipeline, documents, QUERY, callbacks=[runs])

    assert _ids(kept) == ["d2"]
    assert [len(call.documents) for call in reranker.calls] == [4, 3]
    assert [run.name for run in runs.traced_runs] == ["BGERerank", "BGERerank"]


async def test_a_pipeline_may_leave_nothing(compress: Compress, reranker: FakeReranker) -> None:
    pipeline = DocumentCompressorPipeline(transformers=[BGERerank(reranker=reranker)])

    assert await compress(pipeline, [], QUERY) == []


# --- settings and copies -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BGERerank, BGERerankRetriever, BGECrossEncoder])
@pytest.mark.parametrize("name", ["batch_size", "tpo_n"])
def test_an_unknown_setting_is_refused(
    kind: Any, name: str, reranker: FakeReranker, base: ListRetriever
) -> None:
    more = {"base_retriever": base} if kind is BGERerankRetriever else {}

    with pytest.raises(ValidationError, match=name):
        kind(reranker=reranker, **{name: 32}, **more)


@pytest.mark.parametrize("top_n", [0, -1, -100])
def test_a_top_n_below_one_is_refused(reranker: FakeReranker, top_n: int) -> None:
    compressor = BGERerank(reranker=reranker)

    with pytest.raises(ValueError, match="top_n must be None or an int of at least 1"):
        compressor.top_n = top_n
    with pytest.raises(ValueError, match="top_n must be None or an int of at least 1"):
        BGERerank(reranker=reranker, top_n=top_n)


@pytest.fixture
def shared(xlmr: str) -> Iterator[RerankEngine]:
    with RerankEngine.shared(xlmr, max_length=64) as engine:
        yield engine


@pytest.mark.parametrize(
    "round_trip",
    [
        lambda given: type(given)(**given.model_dump()),
        lambda given: type(given).model_validate_json(given.model_dump_json()),
        lambda given: pickle.loads(pickle.dumps(given)),
        copy.deepcopy,
        lambda given: given.model_copy(),
    ],
    ids=["dict", "json", "pickle", "deepcopy", "model_copy"],
)
@pytest.mark.parametrize("kind", [BGERerank, BGECrossEncoder])
def test_a_round_trip_keeps_the_settings_and_the_weights(
    kind: Any, round_trip: Callable[[Any], Any], shared: RerankEngine, xlmr: str
) -> None:
    given = kind(model=xlmr, max_length=64)

    restored = round_trip(given)

    assert restored == given
    assert restored._find() == shared


# --- the retriever -----------------------------------------------------------------------------


@pytest.fixture
def retriever(reranker: FakeReranker, base: ListRetriever) -> BGERerankRetriever:
    return BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=2)


async def test_a_retriever_reranks_what_its_base_finds(
    invoke: Invoke, retriever: BGERerankRetriever, documents: list[Document]
) -> None:
    before = copy.deepcopy(documents)

    kept = await invoke(retriever, QUERY)

    assert _ids(kept) == ["d2", "d1"]
    assert kept[1].metadata == {"place": 1, "relevance_score": 0.5}
    assert documents == before


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (3, 3), (None, 4)])
async def test_one_call_may_keep_another_number(
    invoke: Invoke, retriever: BGERerankRetriever, top_n: int | None, count: int
) -> None:
    assert len(await invoke(retriever, QUERY, top_n=top_n)) == count
    assert len(await invoke(retriever, QUERY)) == 2


async def test_one_call_may_have_another_threshold(
    invoke: Invoke, retriever: BGERerankRetriever
) -> None:
    assert _ids(await invoke(retriever, QUERY, score_threshold=0.8)) == ["d2"]


async def test_a_retrievers_own_threshold_holds_for_every_other_call(
    invoke: Invoke, base: ListRetriever, reranker: FakeReranker
) -> None:
    retriever = BGERerankRetriever(
        base_retriever=base, reranker=reranker, top_n=None, score_threshold=0.5
    )

    assert _ids(await invoke(retriever, QUERY)) == ["d2", "d1"]
    assert len(await invoke(retriever, QUERY, score_threshold=None)) == 4
    assert _ids(await invoke(retriever, QUERY, top_n=1)) == ["d2"]
    assert _ids(await invoke(retriever, QUERY)) == ["d2", "d1"]


async def test_a_wrong_number_is_refused_before_anything_is_asked(
    invoke: Invoke, reranker: FakeReranker
) -> None:
    asked: list[str] = []

    def find(query: str) -> list[Document]:
        asked.append(query)
        return []

    retriever = BGERerankRetriever(base_retriever=RunnableLambda(find), reranker=reranker)

    with pytest.raises(ValueError, match="top_n must be None or an int of at least 1, got 0"):
        await invoke(retriever, QUERY, top_n=0)

    assert asked == []


async def test_other_arguments_are_the_base_retrievers(
    invoke: Invoke, retriever: BGERerankRetriever, reranker: FakeReranker
) -> None:
    assert _ids(await invoke(retriever, QUERY, k=2, top_n=1)) == ["d1"]
    assert len(reranker.calls[0].documents) == 2


async def test_a_base_that_finds_nothing(invoke: Invoke, reranker: FakeReranker) -> None:
    base = ListRetriever(documents=[])

    assert await invoke(BGERerankRetriever(base_retriever=base, reranker=reranker), QUERY) == []
    assert reranker.calls == []


async def test_the_base_may_be_any_runnable(
    invoke: Invoke, reranker: FakeReranker, documents: list[Document]
) -> None:
    base: Any = RunnablePassthrough() | RunnableLambda(lambda query: documents)
    retriever = BGERerankRetriever(base_retriever=base, reranker=reranker, top_n=1)

    assert _ids(await invoke(retriever, QUERY)) == ["d2"]


async def test_a_retriever_run_holds_those_of_its_parts(
    invoke: Invoke, retriever: BGERerankRetriever, runs: RunCollectorCallbackHandler
) -> None:
    kept = await invoke(retriever, QUERY, {"callbacks": [runs]})

    [run] = runs.traced_runs
    assert _tree(run) == {"BGERerankRetriever": ["ListRetriever", "BGERerank"]}
    assert (run.run_type, run.outputs) == ("retriever", {"documents": kept})


async def test_a_failing_reranker_ends_every_run(
    invoke: Invoke, base: ListRetriever, runs: RunCollectorCallbackHandler
) -> None:
    retriever = BGERerankRetriever(
        base_retriever=base, reranker=FakeReranker(error=RuntimeError("broken"))
    )

    with pytest.raises(RuntimeError, match="broken"):
        await invoke(retriever, QUERY, {"callbacks": [runs]})

    [run] = runs.traced_runs
    found, reranked = run.child_runs
    assert found.error is None
    assert all("broken" in (failed.error or "") for failed in (run, reranked))


async def test_the_async_retriever_is_native(
    retriever: BGERerankRetriever, reranker: FakeReranker
) -> None:
    await retriever.ainvoke(QUERY)

    assert [(call.method, call.thread) for call in reranker.calls] == [
        ("arerank", threading.get_ident())
    ]


async def test_a_chain_holds_the_retriever(
    invoke: Invoke, retriever: BGERerankRetriever, runs: RunCollectorCallbackHandler
) -> None:
    chain = {"context": retriever, "question": RunnablePassthrough()} | RunnableLambda(
        lambda given: f"{given['question']}? {given['context'][0].page_content}"
    )

    assert await invoke(chain, QUERY, {"callbacks": [runs]}) == f"{QUERY}? {QUERY}"
    [run] = runs.traced_runs
    assert {"BGERerankRetriever": ["ListRetriever", "BGERerank"]} in _tree(run.child_runs[0])[
        "RunnableParallel<context,question>"
    ]


async def test_a_tool_holds_the_retriever(invoke: Invoke, retriever: BGERerankRetriever) -> None:
    tool = create_retriever_tool(retriever, "sea", "about the sea")

    assert await invoke(tool, {"query": QUERY}) == "how do ships float\n\nships float on water"


def test_batches_keep_their_order(retriever: BGERerankRetriever) -> None:
    queries = ["bread and butter", QUERY] * 3

    assert [_ids(kept)[0] for kept in retriever.batch(queries)] == ["d0", "d2"] * 3


def test_settings_may_be_configurable(retriever: BGERerankRetriever) -> None:
    configurable = retriever.configurable_fields(top_n=ConfigurableField(id="top_n"))

    assert len(configurable.invoke(QUERY, {"configurable": {"top_n": 1}})) == 1
    assert len(configurable.invoke(QUERY)) == 2


# --- the cross encoder -------------------------------------------------------------------------


def test_it_is_a_cross_encoder() -> None:
    assert issubclass(BGECrossEncoder, BaseCrossEncoder)


def test_scores_are_in_the_order_of_the_pairs(reranker: FakeReranker) -> None:
    pairs = [("a b", "a"), ("c", "c"), ("a b", "b a"), ("c", "d"), ("a b", "a")]

    scores = BGECrossEncoder(reranker=reranker).score(pairs)

    assert scores == pytest.approx([0.2689, 0.2689, 0.5, 0.1192, 0.2689], abs=1e-4)
    assert all(type(score) is float for score in scores)


def test_all_pairs_are_one_call(reranker: FakeReranker) -> None:
    pairs = [("q", "a"), ("r", "b"), ("q", "c")]

    BGECrossEncoder(reranker=reranker).score(pairs)

    assert reranker.pair_calls == [tuple(pairs)]
    assert reranker.calls == []


def test_no_pairs_have_no_scores(reranker: FakeReranker) -> None:
    assert BGECrossEncoder(reranker=reranker).score([]) == []


def test_scores_of_any_number_type_become_floats() -> None:
    class NumpyReranker(FakeReranker):
        def score_pairs(self, pairs: Any) -> Any:
            return np.array(super().score_pairs(pairs), dtype=np.float32)

    scores = BGECrossEncoder(reranker=NumpyReranker()).score([("a b", "b a"), ("a b", "a")])

    assert scores == pytest.approx([0.5, 0.2689], abs=1e-4)
    assert all(type(score) is float for score in scores)


class RankingOnly:
    """A reranker that scores no pairs."""

    model = "ranks"

    def rerank(self, *given: Any) -> Any:
        raise AssertionError("it is not asked")

    arerank = rerank


def test_a_reranker_that_scores_no_pairs_is_named() -> None:
    encoder = BGECrossEncoder(reranker=RankingOnly())

    with pytest.raises(ConfigurationError, match=r"score_pairs\(\), got RankingOnly"):
        encoder.score([("q", "a")])


def test_an_error_of_the_reranker_names_the_pair(shared: RerankEngine) -> None:
    pairs = [("q", "a"), ("r", "b"), ("q", "\ud800")]

    with pytest.raises(InputError, match="the document of pair 2 holds a lone surrogate") as caught:
        BGECrossEncoder(reranker=shared).score(pairs)

    assert caught.value.index == 2


async def test_the_cross_encoder_reranker_takes_it(
    compress: Compress, reranker: FakeReranker, documents: list[Document]
) -> None:
    compressor = CrossEncoderReranker(model=BGECrossEncoder(reranker=reranker), top_n=2)

    assert _ids(await compress(compressor, documents, QUERY)) == ["d2", "d1"]
    assert await compress(compressor, [], QUERY) == []


def test_the_cross_encoder_has_nothing_to_select(reranker: FakeReranker) -> None:
    with pytest.raises(ValidationError, match="top_n"):
        BGECrossEncoder(reranker=reranker, top_n=2)  # type: ignore[call-arg]


# --- with a model ------------------------------------------------------------------------------


async def test_all_three_agree_with_the_engine(
    compress: Compress, shared: RerankEngine, documents: list[Document]
) -> None:
    expected = {d.index: d.score for d in shared.rerank(QUERY, [d.page_content for d in documents])}
    pairs = [(QUERY, document.page_content) for document in documents]

    kept = await compress(BGERerank(reranker=shared, top_n=None), documents, QUERY)
    scores = BGECrossEncoder(reranker=shared).score(pairs)

    assert _ids(kept) == [f"d{index}" for index in expected]
    assert {d.metadata["place"]: d.metadata["relevance_score"] for d in kept} == pytest.approx(
        expected, abs=1e-6
    )
    assert dict(enumerate(scores)) == pytest.approx(expected, abs=1e-6)


async def test_the_built_in_model_finds_the_answer(compress: Compress) -> None:
    texts = [
        "Bread is baked from flour, water, yeast and salt.",
        "A ship floats because it displaces its own weight of water.",
        "The parliament is elected every four years.",
    ]
    documents = [Document(page_content=text) for text in texts]

    kept = await compress(BGERerank(model="tiny", top_n=1), documents, "why does a ship float?")

    assert [document.page_content for document in kept] == [texts[1]]


# --- without LangChain -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["langchain_core", "langchain_core.cross_encoders"])
def test_importing_without_the_framework_names_the_cure(missing: str) -> None:
    error, cause, message = import_without(missing, "bge_rerank_integrations.langchain")

    assert (error, cause) == ("MissingExtraError", "ModuleNotFoundError")
    assert 'pip install "bge-rerank-integrations[langchain]"' in message


def test_a_broken_framework_speaks_for_itself() -> None:
    error, _, message = import_without("langsmith", "bge_rerank_integrations.langchain")

    assert error in ("ImportError", "ModuleNotFoundError")
    assert "langsmith" in message
