"""A component from its making to its end: settings, loading, copies, subclasses, handlers."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from fake_reranker import FakeReranker
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as IndexDocument
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler as LlamaHandler
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from processes import WITH_LIBRARIES, run
from pydantic import ValidationError
from serving.fake_engine import FakeEngine
from serving.live import live_server

from bge_rerank_integrations import (
    CallOptions,
    ConfigurationError,
    EngineConfig,
    ModelLoadError,
    RemoteReranker,
    RerankEngine,
    ScoringError,
    langchain,
    llama_index,
)
from bge_rerank_integrations.errors import NonFiniteScoreError, RemoteError
from bge_rerank_integrations.ranking import Scores

QUERY = "why does a ship float?"
TEXTS = [
    "Bread is baked from flour, water, yeast and salt.",
    "A ship floats because it displaces its own weight of water.",
    "The parliament is elected every four years.",
]
KINDS = {"llama_index": llama_index.BGERerank, "langchain": langchain.BGERerank}


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


def documents() -> list[Document]:
    return [Document(page_content=text) for text in TEXTS]


def texts_of(component: Any) -> list[str]:
    """What a component of either framework keeps."""
    if isinstance(component, llama_index.BGERerank):
        return [it.text for it in component.postprocess_nodes(nodes(), query_str=QUERY)]
    return [it.page_content for it in component.compress_documents(documents(), QUERY)]


async def atexts_of(component: Any) -> list[str]:
    if isinstance(component, llama_index.BGERerank):
        return [it.text for it in await component.apostprocess_nodes(nodes(), query_str=QUERY)]
    return [it.page_content for it in await component.acompress_documents(documents(), QUERY)]


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """Every test with this fixture runs in both frameworks."""
    return request.param


@pytest.fixture
def own_engine() -> Iterator[dict[str, Any]]:
    """Settings of a model that no other test holds."""
    settings: dict[str, Any] = {"model": "tiny", "max_queued_pairs": 77_777}
    yield settings
    RerankEngine.shared(**settings).close()


# --- one rule for every value ------------------------------------------------------------------

NUMBERS = ["score_threshold", "prune", "prune_share", "drop_duplicates", "timeout_s", "max_wait_s"]
INTS = ["top_n", "max_length", "query_max_length", "max_batch_tokens", "max_queued_pairs"]
BOOLS = ["show_progress", "normalize", "local_files_only", "lazy"]


def _anywhere(setting: str) -> list[Callable[[Any], Any]]:
    """Where a setting may be given."""
    places: list[Callable[[Any], Any]] = [
        lambda value, kind=kind: kind("tiny", lazy=True, **{setting: value})
        for kind in KINDS.values()
        if setting != "lazy"
    ]
    if setting == "lazy":
        places = [lambda value, kind=kind: kind("tiny", lazy=value) for kind in KINDS.values()]
    for group in (EngineConfig, CallOptions):
        if setting in group.__dataclass_fields__:
            places.append(lambda value, group=group: group(**{setting: value}))
    if setting == "top_n":
        engine = RerankEngine.shared("tiny")
        remote = RemoteReranker("http://127.0.0.1:1")
        places += [
            lambda value: engine.rerank(QUERY, TEXTS, value),
            lambda value: langchain.BGERerank(reranker=engine).rerank(TEXTS, QUERY, top_n=value),
            lambda value: remote.rerank(QUERY, [], value),
        ]
    return places


@pytest.mark.parametrize("setting", [*NUMBERS, *INTS])
@pytest.mark.parametrize("value", ["0.3", "3", np.str_("3"), b"3", np.bool_(True), [3], object()])
def test_what_is_no_number_is_refused_as_a_number(setting: str, value: Any) -> None:
    if setting == "drop_duplicates" and isinstance(value, np.bool_):
        pytest.skip("a bool means something there")
    for give in _anywhere(setting):
        with pytest.raises(ValueError, match=f"{setting} must be"):
            give(value)


@pytest.mark.parametrize("setting", [*NUMBERS, *INTS])
@pytest.mark.parametrize("value", [True, False])
def test_a_bool_is_no_number(setting: str, value: bool) -> None:
    if setting == "drop_duplicates":
        assert KINDS["langchain"]("tiny", drop_duplicates=value).drop_duplicates in (0.8, None)
        return
    for give in _anywhere(setting):
        with pytest.raises(ValueError, match=f"{setting} must be"):
            give(value)


@pytest.mark.parametrize("setting", BOOLS)
@pytest.mark.parametrize("value", ["yes", "true", "false", 1, 0, 1.0, np.int64(1), None])
def test_what_is_no_bool_is_refused_as_a_bool(setting: str, value: Any) -> None:
    for give in _anywhere(setting):
        with pytest.raises(ValueError, match=f"{setting} must be a bool"):
            give(value)


@pytest.mark.parametrize("setting", [*NUMBERS])
@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.float16(0.5), 0.5])
def test_a_number_of_numpy_is_a_number(setting: str, value: Any, kind: Any) -> None:
    component = kind("tiny", **{setting: value})

    assert getattr(component, setting) == 0.5
    assert type(getattr(component, setting)) is float


@pytest.mark.parametrize("setting", INTS)
@pytest.mark.parametrize("value", [np.int64(32), np.uint8(32), 32])
def test_an_int_of_numpy_is_an_int(setting: str, value: Any, kind: Any) -> None:
    component = kind("tiny", lazy=True, **{setting: value})

    assert getattr(component, setting) == 32
    assert type(getattr(component, setting)) is int
    for give in _anywhere(setting)[2:]:
        give(value)


@pytest.mark.parametrize("setting", BOOLS)
def test_a_bool_of_numpy_is_a_bool(setting: str, kind: Any) -> None:
    component = kind(**{"model": "tiny", "lazy": True, setting: np.bool_(False)})

    assert getattr(component, setting) is False


def test_a_fraction_and_a_list_of_layers() -> None:
    with pytest.raises(ConfigurationError, match="timeout_s must be"):
        CallOptions(timeout_s=Fraction(1, 2))  # type: ignore[arg-type]
    assert EngineConfig(cutoff_layers=np.array([16, 8])).cutoff_layers == (8, 16)  # type: ignore[arg-type]
    assert CallOptions(timeout_s=10**400).timeout_s == float("inf")


# --- contradictions ----------------------------------------------------------------------------


def test_a_share_of_logits_is_refused_when_it_is_given(kind: Any) -> None:
    for settings in ({}, {"lazy": True}, {"on_error": "keep"}):
        with pytest.raises(ValidationError, match="prune_share must be None where scores may be"):
            kind("tiny", normalize=False, prune_share=0.1, **settings)
    raw = RerankEngine.shared("tiny", normalize=False)
    with pytest.raises(ValidationError, match="prune_share must be None where scores may be"):
        kind(reranker=raw, prune_share=0.1)
    component = kind(reranker=raw, prune=-3.0)
    with pytest.raises(ValidationError, match="prune_share must be None where scores may be"):
        component.prune_share = 0.1
    assert component.prune_share is None
    assert texts_of(component)


@pytest.mark.parametrize("setting", ["score_threshold", "prune"])
@pytest.mark.parametrize("value", [1.5, 2, -0.5])
def test_a_threshold_off_the_scale_is_refused(kind: Any, setting: str, value: float) -> None:
    with pytest.raises(ValidationError, match=f"{setting} must be None or from 0 to 1"):
        kind("tiny", **{setting: value})
    component = kind("tiny")
    with pytest.raises(ValidationError, match=f"{setting} must be None or from 0 to 1"):
        setattr(component, setting, value)
    assert getattr(component, setting) is None
    assert getattr(kind("tiny", normalize=False, **{setting: value}), setting) == value


def test_a_lazy_component_is_refused_by_its_first_call() -> None:
    component = langchain.BGERerank("tiny", lazy=True, score_threshold=1.5)

    with pytest.raises(ConfigurationError, match="score_threshold must be None or from 0 to 1"):
        texts_of(component)


def test_one_call_of_a_retriever_is_checked_too() -> None:
    base: Any = RunnableLambda(lambda query: documents())
    retriever = langchain.BGERerankRetriever("tiny", base_retriever=base)

    with pytest.raises(ConfigurationError, match="score_threshold must be None or from 0 to 1"):
        retriever.invoke(QUERY, score_threshold=1.5)


def test_a_scale_that_is_not_known_is_not_checked(kind: Any) -> None:
    component = kind(reranker=FakeReranker(), score_threshold=-7, prune_share=0.5)

    assert component.score_threshold == -7


# --- messages ----------------------------------------------------------------------------------


def test_an_engine_in_place_of_a_name_is_told_where_to_go(kind: Any) -> None:
    for given in (RerankEngine.shared("tiny"), langchain.BGECrossEncoder("tiny")):
        with pytest.raises(ValidationError, match=f"{type(given).__name__}: give it as reranker="):
            kind(given)


def test_a_frozen_setting_names_the_way_out(kind: Any) -> None:
    component = kind("tiny")

    with pytest.raises(ValidationError, match=r"normalize is frozen: .*model_copy\(update="):
        component.normalize = False
    assert component.model_copy(update={"normalize": False}).normalize is False


@pytest.mark.parametrize(
    ("base", "cure"),
    [
        (InMemoryVectorStore(DeterministicFakeEmbedding(size=2)), r"\.as_retriever\(\)"),
        (lambda query: [], r"RunnableLambda\(function\)"),
        ("store", "give a retriever"),
    ],
)
def test_a_base_that_finds_nothing_names_the_cure(base: Any, cure: str) -> None:
    with pytest.raises(ValidationError, match=f"base_retriever must be a Runnable.*{cure}"):
        langchain.BGERerankRetriever("tiny", base_retriever=base)


def test_one_name_of_metadata_is_told_to_be_a_list() -> None:
    with pytest.raises(ValidationError, match=r"metadata_fields must be a list, such as \['title'"):
        langchain.BGERerank("tiny", metadata_fields="title")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"normalize": False}, "normalize cannot change by the call"),
        ({"max_length": 32}, "max_length cannot change by the call"),
        ({"lazy": True}, "lazy cannot change by the call"),
        ({"topn": 1}, "topn is not a setting: did you mean top_n?"),
        ({"scorethreshold": 0.5}, "did you mean score_threshold?"),
    ],
)
async def test_what_a_call_cannot_change_is_refused_by_name(
    given: dict[str, Any], message: str
) -> None:
    store = InMemoryVectorStore.from_texts(TEXTS, DeterministicFakeEmbedding(size=8))
    retriever = langchain.BGERerankRetriever("tiny", base_retriever=store.as_retriever())

    with pytest.raises(ConfigurationError, match=message):
        retriever.invoke(QUERY, **given)
    with pytest.raises(ConfigurationError, match=message):
        await retriever.ainvoke(QUERY, **given)
    assert len(retriever.invoke(QUERY, top_n=1, k=2)) == 1


# --- the engine's life -------------------------------------------------------------------------


def test_a_closed_shared_engine_is_found_again(kind: Any, own_engine: dict[str, Any]) -> None:
    component = kind(**own_engine, top_n=1, on_error="keep")
    RerankEngine.shared(**own_engine).close()

    assert texts_of(component) == [TEXTS[1]]


async def test_a_closed_shared_engine_is_found_again_async(
    kind: Any, own_engine: dict[str, Any]
) -> None:
    component = kind(**own_engine, top_n=1)
    RerankEngine.shared(**own_engine).close()

    assert await atexts_of(component) == [TEXTS[1]]


def test_a_lazy_component_loads_at_its_first_call(kind: Any, tmp_path: Any) -> None:
    component = kind(str(tmp_path / "nothing"), lazy=True, on_error="keep")

    assert pickle.loads(pickle.dumps(component)).lazy
    with pytest.raises(ModelLoadError):
        texts_of(component)
    assert texts_of(kind("tiny", lazy=True, top_n=1)) == [TEXTS[1]]


async def test_a_lazy_component_loads_in_a_thread(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    engine = RerankEngine.shared("tiny")

    def shared(*given: Any, **settings: Any) -> RerankEngine:
        threads.append(threading.get_ident())
        return engine

    monkeypatch.setattr(RerankEngine, "shared", shared)
    component = kind("tiny", lazy=True, top_n=1)
    assert threads == []

    assert await atexts_of(component) == [TEXTS[1]]
    assert await atexts_of(component) == [TEXTS[1]]
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_settings_are_those_of_the_calls_beginning(kind: Any) -> None:
    class Slow(FakeReranker):
        async def arerank(self, *given: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await super().arerank(*given)

    asked, go_on = asyncio.Event(), asyncio.Event()
    component = kind(reranker=Slow(), top_n=2)
    call = asyncio.create_task(atexts_of(component))
    await asked.wait()
    component.prune, component.top_n, component.drop_duplicates = 0.99, 1, True
    component.score_threshold = 0.99
    go_on.set()

    assert await call == [TEXTS[1], TEXTS[0]]


# --- a reranker whose model's name changes -----------------------------------------------------


@pytest.mark.enable_socket
def test_a_remote_model_may_get_another_name() -> None:
    with live_server({"served": FakeEngine()}) as url, RemoteReranker(url) as remote:
        base: Any = RunnableLambda(lambda query: documents())
        retriever = langchain.BGERerankRetriever(
            reranker=remote, base_retriever=base, top_n=2
        ).configurable_fields(top_n=ConfigurableField(id="top_n"))
        component = llama_index.BGERerank(reranker=remote)
        compressor = langchain.BGERerank(reranker=remote)
        data = component.to_dict()
        dumped = {**compressor.model_dump(), "reranker": remote}
        assert (component.model, remote.model) == ("default", "default")

        for _ in range(2):
            assert len(retriever.invoke(QUERY, {"configurable": {"top_n": 1}})) == 1
        name = remote.model
        assert name != "default"
        restored = llama_index.BGERerank.from_dict(data, reranker=remote)
        assert texts_of(restored) == texts_of(component)
        assert restored.model == component.model == name
        validated = langchain.BGERerank.model_validate(dumped)
        runs = RunCollectorCallbackHandler()
        validated.compress_documents(documents(), QUERY, callbacks=[runs])
        assert runs.traced_runs[0].metadata["model"] == name
        assert component.model_copy(update={"top_n": 1}).model == name


# --- subclasses --------------------------------------------------------------------------------


async def test_a_llama_index_subclass_with_a_sync_method_holds_for_async_calls() -> None:
    class Mine(llama_index.BGERerank):
        def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
            threads.append(threading.get_ident())
            kept = super()._postprocess_nodes(nodes, query_bundle)
            return [it for it in kept if it.get_score() > 0.5]

    threads: list[int] = []
    component = Mine("tiny", top_n=3)
    index = VectorStoreIndex.from_documents(
        [IndexDocument(text=text) for text in TEXTS], embed_model=MockEmbedding(embed_dim=8)
    )
    engine = index.as_query_engine(llm=MockLLM(), node_postprocessors=[component])

    assert texts_of(component) == await atexts_of(component) == [TEXTS[1]]
    assert [it.text for it in (await engine.aquery(QUERY)).source_nodes] in ([TEXTS[1]], [])
    assert threads[1] != threading.get_ident()


async def test_a_llama_index_subclass_with_an_async_method_is_called_once() -> None:
    class Mine(llama_index.BGERerank):
        async def _apostprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
            calls.append("async")
            return await super()._apostprocess_nodes(nodes, query_bundle)

        def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
            calls.append("sync")
            return super()._postprocess_nodes(nodes, query_bundle)

    calls: list[str] = []
    assert await atexts_of(Mine(reranker=FakeReranker(), top_n=1)) == [TEXTS[1]]
    assert calls == ["async"]


async def test_a_langchain_subclass_with_a_sync_method_holds_for_async_calls() -> None:
    class Mine(langchain.BGERerank):
        def compress_documents(self, documents: Any, query: Any, callbacks: Any = None) -> Any:
            kept = super().compress_documents(documents, query, callbacks)
            return [it for it in kept if it.metadata["relevance_score"] > 0.5]

    class Finder(langchain.BGERerankRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any, **given: Any) -> Any:
            found = super()._get_relevant_documents(query, run_manager=run_manager, **given)
            return [it for it in found if it.metadata["relevance_score"] > 0.5]

    component = Mine("tiny")
    base: Any = RunnableLambda(lambda query: documents())
    retriever = Finder("tiny", base_retriever=base)

    assert texts_of(component) == await atexts_of(component) == [TEXTS[1]]
    assert [it.page_content for it in await retriever.ainvoke(QUERY)] == [TEXTS[1]]
    assert retriever.invoke(QUERY) == await retriever.ainvoke(QUERY, top_n=2)


# --- handlers that raise -----------------------------------------------------------------------


class Forbids(BaseCallbackHandler):
    """Raises on purpose, as a handler that stops a run does."""

    raise_error = True

    def __init__(self, when: str) -> None:
        self._when = when

    def _forbid(self, when: str) -> None:
        if when == self._when:
            raise PermissionError(f"not {when}")

    def on_chain_start(self, *given: Any, **more: Any) -> None:
        self._forbid("start")

    def on_chain_end(self, *given: Any, **more: Any) -> None:
        self._forbid("end")

    def on_chain_error(self, *given: Any, **more: Any) -> None:
        self._forbid("error")


@pytest.mark.parametrize("when", ["start", "end", "error"])
async def test_a_langchain_handlers_own_error_is_raised(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = RemoteError("down") if when == "error" else None
    compressor = langchain.BGERerank(reranker=FakeReranker(error=error), on_error="keep", prune=0.1)
    config: Any = [Forbids(when)]

    with pytest.raises(PermissionError, match=f"not {when}"):
        compressor.compress_documents(documents(), QUERY, callbacks=config)
    with pytest.raises(PermissionError, match=f"not {when}"):
        await compressor.acompress_documents(documents(), QUERY, callbacks=config)
    assert not [it for it in caplog.records if "pruning failed" in it.getMessage()]
    assert not [it for it in caplog.records if "PermissionError" in it.getMessage()][2:]


class LlamaForbids(LlamaHandler):
    """Raises on purpose."""

    def __init__(self, when: str) -> None:
        super().__init__([], [])
        self._when = when

    def on_event_start(self, *given: Any, **more: Any) -> str:
        if self._when == "start":
            raise PermissionError("not start")
        return ""

    def on_event_end(self, *given: Any, **more: Any) -> None:
        if self._when == "end":
            raise PermissionError("not end")

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, *given: Any, **more: Any) -> None: ...


@pytest.mark.parametrize("when", ["start", "end"])
async def test_a_llama_index_handlers_own_error_is_raised(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    component = llama_index.BGERerank(
        reranker=FakeReranker(),
        top_n=1,
        on_error="keep",
        callback_manager=CallbackManager([LlamaForbids(when)]),
    )

    with pytest.raises(PermissionError, match=f"not {when}"):
        component.postprocess_nodes(nodes(), query_str=QUERY)
    with pytest.raises(PermissionError, match=f"not {when}"):
        await component.apostprocess_nodes(nodes(), query_str=QUERY)
    assert caplog.records == []


# --- the event loop ----------------------------------------------------------------------------


async def test_comparing_and_splitting_do_not_hold_the_event_loop(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bge_rerank_integrations import highlighting, pipeline

    threads: dict[str, int] = {}

    def noting(name: str, function: Any) -> Any:
        def noted(*given: Any) -> Any:
            threads[name] = threading.get_ident()
            return function(*given)

        return noted

    monkeypatch.setattr(pipeline, "distinct", noting("distinct", pipeline.distinct))
    monkeypatch.setattr(pipeline, "pruned", noting("pruned", pipeline.pruned))
    monkeypatch.setattr(highlighting, "sentences", noting("sentences", highlighting.sentences))

    await atexts_of(kind("tiny", drop_duplicates=True, prune_share=0.1))

    assert threads.keys() == {"distinct", "pruned", "sentences"}
    assert threading.get_ident() not in threads.values()


async def test_async_pruning_is_async(kind: Any) -> None:
    class Counts(FakeReranker):
        def highlight(self, query: str, documents: Iterable[str], **options: Any) -> Any:
            calls.append("highlight")
            return super().highlight(query, documents, **options)

        async def ahighlight(self, query: str, documents: Iterable[str], **options: Any) -> Any:
            calls.append("ahighlight")
            return await super().ahighlight(query, documents, **options)

    calls: list[str] = []
    await atexts_of(kind(reranker=Counts(), prune=0.2))
    assert calls == ["ahighlight"]
    texts_of(kind(reranker=Counts(), prune=0.2))
    assert calls == ["ahighlight", "highlight"]


# --- other packages' scores --------------------------------------------------------------------


class Answers(BaseCrossEncoder):
    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def score(self, text_pairs: Any) -> Any:
        return self.scores


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ([0.1, float("nan"), 0.2], NonFiniteScoreError, "document 1 must be finite"),
        ([0.1, np.float32("inf"), 0.2], NonFiniteScoreError, "document 1 must be finite"),
        ([0.1, "0.3", 0.2], ScoringError, "document 1 must be a number, Answers gave '0.3'"),
        ([0.1, None, 0.2], ScoringError, "document 1 must be a number, Answers gave None"),
        ([0.1, True, 0.2], ScoringError, "document 1 must be a number"),
        (np.zeros((3, 2)), ScoringError, "document 0 must be a number"),
        ([0.1], ScoringError, "gave 1 scores for 3 pairs"),
        (None, ScoringError, "must give a list of scores, got NoneType"),
        ("0.1", ScoringError, "must give a list of scores, got str"),
    ],
)
async def test_scores_of_other_packages_are_checked(
    kind: Any, scores: Any, error: type[ScoringError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        texts_of(kind(reranker=Answers(scores)))
    assert caught.value.index == (None if "of scores" in message or "for 3" in message
                                  else int("document 1" in message))  # fmt: skip
    with pytest.raises(error, match=message):
        await atexts_of(kind(reranker=Answers(scores)))
    if kind is langchain.BGERerank:
        pairs = [(QUERY, text) for text in TEXTS]
        with pytest.raises(error, match=message):
            langchain.BGECrossEncoder(reranker=Answers(scores)).score(pairs)


@pytest.mark.parametrize("scores", [(0.1, 0.9, 0.2), np.array([0.1, 0.9, 0.2], np.float32)])
def test_scores_of_any_kind_of_list_are_taken(kind: Any, scores: Any) -> None:
    assert texts_of(kind(reranker=Answers(scores), top_n=1)) == [TEXTS[1]]


def test_an_error_of_pruning_names_the_place_in_the_list_given() -> None:
    class Breaks(FakeReranker):
        def score(self, query: str, documents: Iterable[str]) -> Scores:
            raise ScoringError("document 0, broken", 0)

    given = [Document(page_content=""), *documents()]
    compressor = langchain.BGERerank(reranker=Breaks(), prune=0.1, top_n=2)

    with pytest.raises(ScoringError) as caught:
        compressor.compress_documents(given, QUERY)
    assert caught.value.index == 2


def test_a_failed_shared_engine_is_found_again(
    kind: Any, own_engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    component = kind(**own_engine, top_n=1)
    failed = component._found
    monkeypatch.setattr(type(failed._running), "state", "failed")
    assert texts_of(component) == [TEXTS[1]]
    monkeypatch.undo()

    assert component._found != failed
    assert texts_of(component) == [TEXTS[1]]


# --- after a fork ------------------------------------------------------------------------------

_FORKED = """
import os, warnings
warnings.simplefilter("ignore")
from llama_index.core.schema import NodeWithScore, TextNode
from langchain_core.documents import Document
from bge_rerank_integrations import langchain, llama_index
settings = {"model": "tiny", "on_error": "keep", "top_n": 1}
node, lc = llama_index.BGERerank(**settings), langchain.BGERerank(**settings)
late = langchain.BGERerank(lazy=True, **settings)
found = [NodeWithScore(node=TextNode(text=text)) for text in ("bread", "a ship floats")]
documents = [Document(page_content=it.text) for it in found]
def best():
    return [node.postprocess_nodes(found, query_str="ship")[0].text,
            lc.compress_documents(documents, "ship")[0].page_content,
            late.compress_documents(documents, "ship")[0].page_content]
if USED:
    best()
child = os.fork()
if not child:
    print(*best(), sep=",", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_components_of_the_parent_rerank_in_a_forked_child(is_used: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}

    done = run(f"USED = {is_used}\n{_FORKED}", environment=environment, imported=WITH_LIBRARIES)

    assert done.stdout.split(",") == ["a ship floats"] * 2 + ["a ship floats\n"], done.stderr
