"""Reranking fails, and the answer goes on with what the retriever found."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from threading import Event
from typing import Any

import httpx
import pytest
from callers import PATIENCE_S, in_thread
from fake_reranker import FakeReranker
from fakes import FakeScorer, Logits, MakeEngine, TokenSequence, digests
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import Field

from bge_rerank_integrations import (
    ConfigurationError,
    DeadlineError,
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
    InputError,
    MissingExtraError,
    ModelLoadError,
    OverloadedError,
    RemoteError,
    RemoteReranker,
    langchain,
    llama_index,
)
from bge_rerank_integrations.ranking import Scores, sigmoid

QUERY = "how do ships float"
TEXTS = ["bread and butter", "ships float on water", "how do ships float", "a ship"]

# (text, reranker's score or None) of what is kept
Kept = list[tuple[str, float | None]]
# a reranker, and settings
Keep = Callable[..., Awaitable[Kept]]


def _documents() -> list[Document]:
    return [Document(page_content=text, metadata={"page": 7}) for text in TEXTS]


def _nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text), score=1.0 - place / 8)
        for place, text in enumerate(TEXTS)
    ]


def _of_documents(documents: Sequence[Document]) -> Kept:
    return [(it.page_content, it.metadata.get("relevance_score")) for it in documents]


def _of_nodes(nodes: Sequence[NodeWithScore]) -> Kept:
    retrieved = {it.node.get_content(): it.score for it in _nodes()}
    kept = [(it.node.get_content(), it.score) for it in nodes]
    return [(text, None if score == retrieved[text] else score) for text, score in kept]


async def _langchain(reranker: Any, **settings: Any) -> Kept:
    compressor = langchain.BGERerank(reranker=reranker, **settings)
    return _of_documents(compressor.compress_documents(_documents(), QUERY))


async def _langchain_async(reranker: Any, **settings: Any) -> Kept:
    compressor = langchain.BGERerank(reranker=reranker, **settings)
    return _of_documents(await compressor.acompress_documents(_documents(), QUERY))


async def _llama_index(reranker: Any, **settings: Any) -> Kept:
    postprocessor = llama_index.BGERerank(reranker=reranker, **settings)
    return _of_nodes(postprocessor.postprocess_nodes(_nodes(), query_str=QUERY))


async def _llama_index_async(reranker: Any, **settings: Any) -> Kept:
    postprocessor = llama_index.BGERerank(reranker=reranker, **settings)
    return _of_nodes(await postprocessor.apostprocess_nodes(_nodes(), query_str=QUERY))


@pytest.fixture(params=[_langchain, _langchain_async, _llama_index, _llama_index_async])
def keep(request: pytest.FixtureRequest) -> Keep:
    """Every test with this fixture runs on both paths of both frameworks."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def held() -> Iterator[Event]:
    """Holds a scorer until the test has ended."""
    gate = Event()
    yield gate
    gate.set()


def dead_service(make_engine: MakeEngine, held: Event) -> Any:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    return RemoteReranker("http://service", max_attempts=1, transport=httpx.MockTransport(refuse))


def lost_engine(make_engine: MakeEngine, held: Event) -> Any:
    def fatal(batch: Sequence[TokenSequence]) -> Logits:
        raise RuntimeError("CUDA error: device-side assert triggered")

    return make_engine(FakeScorer(fatal))


def full_queue(make_engine: MakeEngine, held: Event) -> Any:
    scorer = FakeScorer(gate=held)
    engine = make_engine(scorer, max_queued_pairs=1)
    in_thread(engine.score, "first", ["document"])
    assert scorer.entered.wait(PATIENCE_S)
    return engine


def late_answer(make_engine: MakeEngine, held: Event) -> Any:
    return make_engine(FakeScorer(gate=held), timeout_s=0.05)


def closed_engine(make_engine: MakeEngine, held: Event) -> Any:
    engine = make_engine()
    engine.close()
    return engine


FAILURES = [
    (dead_service, RemoteError),
    (full_queue, OverloadedError),
    (late_answer, DeadlineError),
]


@pytest.mark.parametrize(("fail", "error"), FAILURES, ids=[fail.__name__ for fail, _ in FAILURES])
async def test_the_retrieved_order_is_kept_without_a_score(
    keep: Keep,
    fail: Callable[..., Any],
    error: type[Exception],
    make_engine: MakeEngine,
    held: Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reranker = fail(make_engine, held)

    with caplog.at_level(logging.WARNING, "bge_rerank_integrations.pipeline"):
        kept = await keep(reranker, on_error="keep", top_n=3)

    assert kept == [(text, None) for text in TEXTS[:3]]
    [record] = [it for it in caplog.records if it.name.endswith("pipeline")]
    assert error.__name__ in record.getMessage()
    with pytest.raises(error):
        await keep(reranker, top_n=3)


async def test_a_score_threshold_drops_nothing_that_has_no_score(keep: Keep) -> None:
    reranker = FakeReranker(error=RemoteError("down"))

    kept = await keep(reranker, on_error="keep", top_n=None, score_threshold=0.99)

    assert [text for text, _ in kept] == TEXTS


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("no such option"),
        MissingExtraError("cli"),
        ModelLoadError("not there"),
        EngineClosedError("closed"),
        EngineFailedError("failed"),
        ForkedProcessError("made in the parent"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_that_every_call_would_meet_is_raised(keep: Keep, error: Exception) -> None:
    with pytest.raises(type(error)):
        await keep(FakeReranker(error=error), on_error="keep")


@pytest.mark.parametrize(
    ("fail", "error"), [(lost_engine, EngineFailedError), (closed_engine, EngineClosedError)]
)
async def test_an_engine_that_is_gone_is_not_kept_quiet(
    keep: Keep, fail: Any, error: type[Exception], make_engine: MakeEngine, held: Event
) -> None:
    with pytest.raises(error):
        await keep(fail(make_engine, held), on_error="keep")


@pytest.mark.parametrize("error", [InputError("too long", 1), RuntimeError("of another library")])
async def test_any_other_error_is_kept(keep: Keep, error: Exception) -> None:
    kept = await keep(FakeReranker(error=error), on_error="keep", top_n=1)

    assert [text for text, _ in kept] == TEXTS[:1]


async def test_a_reranker_that_works_reranks(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    kept = await keep(FakeReranker(), on_error="keep", top_n=1)

    assert [text for text, _ in kept] == [QUERY]
    assert caplog.records == []


class FailingHighlights(FakeReranker):
    """Ranks, and fails to score sentences."""

    def score(self, query: str, documents: Iterable[str]) -> Scores:
        raise RemoteError("down")


RANKED: Kept = [
    ("how do ships float", pytest.approx(sigmoid(2))),  # type: ignore[list-item]
    ("ships float on water", pytest.approx(sigmoid(0))),  # type: ignore[list-item]
    ("a ship", pytest.approx(sigmoid(-2))),  # type: ignore[list-item]
]


@pytest.mark.parametrize("pruning", [{"prune": 0.5}, {"prune_share": 0.5}])
async def test_documents_that_cannot_be_pruned_are_ranked_and_whole(
    keep: Keep, pruning: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "bge_rerank_integrations.pipeline"):
        kept = await keep(FailingHighlights(), on_error="keep", top_n=2, **pruning)

    assert kept == RANKED[:2]
    [record] = [it for it in caplog.records if it.name.endswith("pipeline")]
    assert record.getMessage() == (
        "pruning failed, the ranked documents are kept whole: RemoteError: down"
    )
    with pytest.raises(RemoteError):
        await keep(FailingHighlights(), top_n=2, **pruning)


async def test_an_engine_that_is_lost_while_pruning_is_not_kept_quiet(
    keep: Keep, make_engine: MakeEngine
) -> None:
    def score(batch: Sequence[TokenSequence]) -> Logits:
        if len(scorer.batches) > 1:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return digests(batch)

    scorer = FakeScorer(score)
    with pytest.raises(EngineFailedError):
        await keep(make_engine(scorer), on_error="keep", top_n=3, prune=0.5)


async def test_what_ranks_below_the_threshold_stays_out_when_pruning_fails(keep: Keep) -> None:
    kept = await keep(FailingHighlights(), on_error="keep", prune=0.5, score_threshold=0.5)
    assert kept == RANKED[:2]

    # nothing is left to prune, so nothing fails
    assert await keep(FailingHighlights(), prune=0.5, score_threshold=0.999) == []


# made anew for every test: LlamaIndex marks the errors that it has reported
FAILING = {
    "reranking": lambda: FakeReranker(error=RemoteError("down")),
    "pruning": FailingHighlights,
}


@pytest.mark.parametrize("failing", FAILING)
async def test_a_trace_holds_the_error(failing: str) -> None:
    compressor = langchain.BGERerank(reranker=FAILING[failing](), on_error="keep", prune=0.5)
    given = _documents()
    for is_async in (False, True):
        runs = RunCollectorCallbackHandler()
        if is_async:
            kept = await compressor.acompress_documents(given, QUERY, callbacks=[runs])
        else:
            kept = compressor.compress_documents(given, QUERY, callbacks=[runs])
        kept[0].metadata["page"] = "changed"

        [run] = runs.traced_runs
        assert "RemoteError('down'" in (run.error or "")
    assert given == _documents()


async def test_a_call_of_a_retriever_may_fail_open() -> None:
    base: Any = RunnableLambda(lambda query: _documents())
    retriever = langchain.BGERerankRetriever(
        base_retriever=base, reranker=FakeReranker(error=RemoteError("down")), on_error="keep"
    )

    assert _of_documents(retriever.invoke(QUERY, top_n=1)) == [(TEXTS[0], None)]
    with pytest.raises(RemoteError):
        retriever.invoke(QUERY, on_error="raise")


class _Events(BaseEventHandler):
    seen: list[BaseEvent] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.seen.append(event)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("failing", "kept_scores"),
    [
        ("reranking", [(1.0, 1.0), (0.875, 0.875)]),
        ("pruning", [(sigmoid(2), 0.75), (sigmoid(0), 0.875)]),
    ],
)
async def test_an_event_and_a_callback_hold_the_error(
    is_async: bool, failing: str, kept_scores: list[tuple[float, float]]
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = llama_index.BGERerank(
        reranker=FAILING[failing](),
        on_error="keep",
        top_n=2,
        prune=0.5,
        keep_retrieval_score=True,
        callback_manager=CallbackManager([debug]),
    )
    events = _Events()
    root = get_dispatcher("root")
    root.add_event_handler(events)
    try:
        if is_async:
            kept = await postprocessor.apostprocess_nodes(_nodes(), query_str=QUERY)
        else:
            kept = postprocessor.postprocess_nodes(_nodes(), query_str=QUERY)
    finally:
        root.event_handlers.remove(events)

    [failed] = [event for event in events.seen if isinstance(event, ExceptionEvent)]
    [end] = [event for event in events.seen if isinstance(event, ReRankEndEvent)]
    error = failed.exception
    assert isinstance(error, RemoteError)
    assert end.nodes == kept
    assert failed.span_id == end.span_id
    [[_, ended]] = debug.get_event_pairs(CBEventType.RERANKING)
    assert ended.payload == {EventPayload.EXCEPTION: error}
    assert [(it.score, it.node.metadata["retrieval_score"]) for it in kept] == kept_scores
