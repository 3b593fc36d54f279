"""The LlamaIndex node postprocessor, called as LlamaIndex calls it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fake_reranker import FakeReranker
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
)
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from pydantic import Field, ValidationError

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.llama_index import BGERerank
from integration.missing import import_without

QUERY = "how do ships float"

Postprocess = Callable[..., Awaitable[list[NodeWithScore]]]


async def _sync(postprocessor: BGERerank, *args: Any, **kwargs: Any) -> list[NodeWithScore]:
    return postprocessor.postprocess_nodes(*args, **kwargs)


async def _async(postprocessor: BGERerank, *args: Any, **kwargs: Any) -> list[NodeWithScore]:
    return await postprocessor.apostprocess_nodes(*args, **kwargs)


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def postprocess(request: pytest.FixtureRequest) -> Postprocess:
    """Every test with this fixture runs on both of LlamaIndex's paths."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    texts = ["bread and butter", "ships float on water", "how do ships float", "a ship"]
    return [
        NodeWithScore(node=TextNode(id_=f"n{place}", text=text), score=1.0 - place / 10)
        for place, text in enumerate(texts)
    ]


class Events(BaseEventHandler):
    """Remembers what was dispatched."""

    seen: list[BaseEvent] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.seen.append(event)


@pytest.fixture
def events() -> Iterator[Events]:
    root = get_dispatcher("root")
    handler = Events()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    root = get_dispatcher("root")
    handler = SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


def _ids(nodes: list[NodeWithScore]) -> list[str]:
    return [scored.node.node_id for scored in nodes]


# --- what comes back ---------------------------------------------------------------------------


def test_it_is_a_node_postprocessor() -> None:
    assert issubclass(BGERerank, BaseNodePostprocessor)
    assert BGERerank.class_name() == "BGERerank"


async def test_the_best_nodes_come_first(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    kept = await postprocess(BGERerank(reranker=reranker, top_n=2), nodes, QueryBundle(QUERY))

    assert _ids(kept) == ["n2", "n1"]
    assert kept[0].score == pytest.approx(0.8808, abs=1e-4)
    assert all(type(scored.score) is float for scored in kept)


async def test_three_nodes_are_kept_unless_told(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    assert len(await postprocess(BGERerank(reranker=reranker), nodes, QueryBundle(QUERY))) == 3


@pytest.mark.parametrize("top_n", [1, 4, 8, None])
async def test_top_n_is_clamped_to_the_nodes(
    postprocess: Postprocess,
    reranker: FakeReranker,
    nodes: list[NodeWithScore],
    top_n: int | None,
) -> None:
    kept = await postprocess(BGERerank(reranker=reranker, top_n=top_n), nodes, QueryBundle(QUERY))

    assert len(kept) == min(4, top_n or 4)
    scores = [scored.get_score() for scored in kept]
    assert scores == sorted(scores, reverse=True)


async def test_a_threshold_is_on_the_reported_scale(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    postprocessor = BGERerank(reranker=reranker, top_n=None, score_threshold=0.5)

    assert _ids(await postprocess(postprocessor, nodes, QueryBundle(QUERY))) == ["n2", "n1"]


async def test_settings_assigned_later_are_used(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    postprocessor = BGERerank(reranker=reranker)

    postprocessor.top_n = 1
    postprocessor.keep_retrieval_score = True
    kept = await postprocess(postprocessor, nodes, QueryBundle(QUERY))

    assert [scored.node.metadata["retrieval_score"] for scored in kept] == [0.8]


async def test_equal_scores_keep_the_retrieval_order(
    postprocess: Postprocess, reranker: FakeReranker
) -> None:
    nodes = [NodeWithScore(node=TextNode(id_=name, text="same")) for name in "cab"]

    assert _ids(await postprocess(BGERerank(reranker=reranker), nodes, "query")) == ["c", "a", "b"]


async def test_no_nodes_ask_nothing(postprocess: Postprocess, reranker: FakeReranker) -> None:
    assert await postprocess(BGERerank(reranker=reranker), [], QueryBundle(QUERY)) == []
    assert reranker.calls == []


@pytest.mark.parametrize("given", ["none", "some"])
async def test_no_query_is_an_error(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore], given: str
) -> None:
    with pytest.raises(ValueError, match=r"^Missing query bundle in extra info\.$"):
        await postprocess(BGERerank(reranker=reranker), nodes if given == "some" else [])


@pytest.mark.parametrize("query", [{"query_str": QUERY}, {"query_bundle": QUERY}])
async def test_the_query_may_be_a_string(
    postprocess: Postprocess,
    reranker: FakeReranker,
    nodes: list[NodeWithScore],
    query: dict[str, str],
) -> None:
    kept = await postprocess(BGERerank(reranker=reranker, top_n=1), nodes, **query)

    assert _ids(kept) == ["n2"]
    assert reranker.calls[0].query == QUERY


async def test_the_async_path_is_native(reranker: FakeReranker, nodes: list[NodeWithScore]) -> None:
    await BGERerank(reranker=reranker).apostprocess_nodes(nodes, query_str=QUERY)

    assert [(call.method, call.thread) for call in reranker.calls] == [
        ("arerank", threading.get_ident())
    ]


async def test_the_async_path_prunes_natively(
    reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    await BGERerank(reranker=reranker, prune=0.1).apostprocess_nodes(nodes, query_str=QUERY)

    assert len(reranker.scored) == reranker.ascored == 1


# --- pruning -----------------------------------------------------------------------------------

LONG = "How do ships float? Bread and butter.\n\nWater holds ships that float. Nothing else."


@pytest.mark.parametrize("kind", [TextNode, Node, Document, ImageNode])
async def test_pruning_gives_a_copy_of_the_node_with_the_sentences_that_matter(
    postprocess: Postprocess, kind: type[TextNode]
) -> None:
    parent = RelatedNodeInfo(node_id="parent")
    content = {"text_resource": MediaResource(text=LONG)} if kind is Node else {"text": LONG}
    node = kind(
        id_="a", metadata={"title": "How ships float"},
        relationships={NodeRelationship.SOURCE: parent}, **content,
    )  # fmt: skip
    before = node.model_dump()
    reranker = FakeReranker()

    [kept] = await postprocess(
        BGERerank(reranker=reranker, prune=0.8), [NodeWithScore(node=node)], query_str=QUERY
    )

    # the neighbor of the best sentence stays, though it scores 0.66
    assert kept.node.get_content() == "How do ships float? Bread and butter."
    assert type(kept.node) is kind
    assert (kept.node.node_id, kept.node.metadata) == ("a", {"title": "How ships float"})
    assert kept.node.source_node == parent
    # reranked with its metadata, split without
    assert reranker.calls[0].documents == (node.get_content(metadata_mode=MetadataMode.EMBED),)
    assert reranker.scored[0][0] == "How do ships float?"
    assert node.model_dump() == before


async def test_a_node_that_is_not_cut_is_the_node_given(postprocess: Postprocess) -> None:
    given = [
        NodeWithScore(node=TextNode(text=LONG)),
        NodeWithScore(node=ImageNode(metadata={"title": "ships"})),
    ]

    kept = await postprocess(BGERerank(reranker=FakeReranker(), prune=0), given, query_str=QUERY)

    assert [scored.node for scored in kept] == [scored.node for scored in given]
    assert all(new.node is old.node for new, old in zip(kept, given, strict=True))


async def test_only_kept_nodes_are_split(postprocess: Postprocess) -> None:
    reranker = FakeReranker()
    texts = ["Bread. Butter.", "Ships float. Really.", "Ships."]
    given = [NodeWithScore(node=TextNode(text=text)) for text in texts]

    await postprocess(BGERerank(reranker=reranker, top_n=2, prune=0.1), given, query_str=QUERY)

    assert reranker.scored == [
        ("Ships float.", "Ships float. Really.", "Really.", "Ships.", "Ships.")
    ]


async def test_pruning_keeps_the_retrieval_score_and_marks_cuts(postprocess: Postprocess) -> None:
    settings = {"prune": 0.8, "prune_mark": "…", "keep_retrieval_score": True}
    given = [NodeWithScore(node=TextNode(text=LONG), score=0.25)]

    [kept] = await postprocess(
        BGERerank(reranker=FakeReranker(), **settings), given, query_str=QUERY
    )

    assert kept.node.get_content() == "How do ships float? Bread and butter.\n\n…"
    assert kept.node.metadata == {"retrieval_score": 0.25, "retrieval_rank": 1}


# --- what the reranker reads -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (None, "title: Sea\nsecret: s\n\nships float"),
        ("llm", "title: Sea\n\nships float"),
        (MetadataMode.NONE, "ships float"),
        ("all", "title: Sea\nurl: u\nsecret: s\n\nships float"),
    ],
)
async def test_the_metadata_read_can_be_chosen(
    postprocess: Postprocess, reranker: FakeReranker, mode: Any, text: str
) -> None:
    node = TextNode(
        text="ships float",
        metadata={"title": "Sea", "url": "u", "secret": "s"},
        excluded_embed_metadata_keys=["url"],
        excluded_llm_metadata_keys=["url", "secret"],
    )
    chosen = {} if mode is None else {"metadata_mode": mode}

    await postprocess(BGERerank(reranker=reranker, **chosen), [NodeWithScore(node=node)], QUERY)

    assert reranker.calls[0].documents == (text,)


async def test_nodes_without_text_keep_their_places(
    postprocess: Postprocess, reranker: FakeReranker
) -> None:
    path = {"file_path": "ships/float.png"}
    nodes = [
        NodeWithScore(node=TextNode(id_="bread", text="bread"), score=0.5),
        NodeWithScore(node=ImageNode(id_="image", image_path="a.png", metadata=path), score=0.4),
        NodeWithScore(node=Node(id_="bare"), score=0.3),
        NodeWithScore(node=IndexNode(id_="index", text="ships float", index_id="i"), score=0.2),
    ]

    kept = await postprocess(
        BGERerank(reranker=reranker, top_n=3, keep_retrieval_score=True), nodes, QUERY
    )

    assert reranker.calls[0].documents == ("bread", "ships float")
    assert _ids(kept) == ["index", "image", "bread"]
    assert kept[0].score == 0.5
    assert [scored.score is None for scored in kept] == [False, True, False]
    assert kept[1].node.metadata["retrieval_score"] == 0.4


async def test_nodes_of_which_none_has_text_ask_nothing(
    postprocess: Postprocess, reranker: FakeReranker
) -> None:
    nodes = [NodeWithScore(node=ImageNode(id_=f"i{place}"), score=0.5) for place in range(4)]

    kept = await postprocess(BGERerank(reranker=reranker), nodes, QUERY)

    assert reranker.calls == []
    assert _ids(kept) == ["i0", "i1", "i2"]


# --- nothing given is changed ------------------------------------------------------------------


async def test_the_nodes_given_stay_as_they_are(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    before = copy.deepcopy(nodes)
    order = list(nodes)

    kept = await postprocess(BGERerank(reranker=reranker), nodes, QUERY)

    assert nodes == before
    assert all(a is b for a, b in zip(nodes, order, strict=True))
    assert kept[0] is not nodes[2]
    assert kept[0].node is nodes[2].node


@pytest.mark.parametrize("excluded", [[], ["page"], ["retrieval_score", "page"]])
async def test_the_retrieval_score_is_kept_on_a_copy_and_hidden_from_models(
    postprocess: Postprocess, reranker: FakeReranker, excluded: list[str]
) -> None:
    node = TextNode(
        text=QUERY,
        metadata={"page": 7},
        excluded_llm_metadata_keys=list(excluded),
        excluded_embed_metadata_keys=list(excluded),
    )
    given = [NodeWithScore(node=node, score=0.25)]
    before = copy.deepcopy(given)
    postprocessor = BGERerank(reranker=reranker, keep_retrieval_score=True)

    [kept] = await postprocess(postprocessor, given, QUERY)

    assert given == before
    assert kept.node.node_id == node.node_id
    assert kept.node.metadata == {
        "page": 7,
        "retrieval_score": 0.25,
        "retrieval_rank": 1,
    }
    hidden = sorted({*excluded, "retrieval_score", "retrieval_rank"})
    assert sorted(kept.node.excluded_llm_metadata_keys) == hidden
    assert sorted(kept.node.excluded_embed_metadata_keys) == hidden
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        read = kept.node.get_content(metadata_mode=mode)
        assert "retrieval_score" not in read
        assert ("page: 7" in read) is ("page" not in excluded)
    assert json.loads(kept.to_json())["node"]["metadata"]["retrieval_score"] == 0.25


async def test_reranking_twice_reads_the_same_text(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    postprocessor = BGERerank(reranker=reranker, keep_retrieval_score=True, top_n=1)

    first = await postprocess(postprocessor, nodes, QUERY)
    [second] = await postprocess(postprocessor, first, QUERY)

    assert reranker.calls[1].documents == (QUERY,)
    assert second.node.metadata["retrieval_score"] == first[0].score


# --- events, callbacks, spans ------------------------------------------------------------------


def _rerank_events(events: Events) -> list[BaseEvent]:
    return [event for event in events.seen if isinstance(event, (ReRankStartEvent, ReRankEndEvent))]


@pytest.mark.parametrize(("top_n", "reported"), [(2, 2), (9, 9), (None, 4)])
async def test_events_tell_what_happens(
    postprocess: Postprocess,
    reranker: FakeReranker,
    nodes: list[NodeWithScore],
    events: Events,
    top_n: int | None,
    reported: int,
) -> None:
    before = copy.deepcopy(nodes)

    kept = await postprocess(BGERerank(reranker=reranker, top_n=top_n), nodes, QueryBundle(QUERY))

    start, end = _rerank_events(events)
    assert isinstance(start, ReRankStartEvent)
    assert (start.query, start.top_n, start.model_name) == (QUERY, reported, "fake")
    assert start.nodes == before
    assert isinstance(end, ReRankEndEvent)
    assert end.nodes == kept
    assert start.span_id == end.span_id


async def test_each_path_has_a_span_that_holds_its_events(
    postprocess: Postprocess,
    reranker: FakeReranker,
    nodes: list[NodeWithScore],
    events: Events,
    spans: SimpleSpanHandler,
) -> None:
    await postprocess(BGERerank(reranker=reranker), nodes, QUERY)

    [span] = spans.completed_spans
    assert span.id_.startswith(("BGERerank._postprocess_nodes", "BGERerank._apostprocess_nodes"))
    assert {event.span_id for event in _rerank_events(events)} == {span.id_}


async def test_the_callback_tells_what_happens(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore]
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([debug])

    kept = await postprocess(BGERerank(reranker=reranker, callback_manager=manager), nodes, QUERY)

    [[start, end]] = debug.get_event_pairs(CBEventType.RERANKING)
    assert start.payload == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: "fake",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 3,
    }
    assert end.payload == {EventPayload.NODES: kept}


async def test_a_failing_reranker_still_ends_what_it_started(
    postprocess: Postprocess,
    nodes: list[NodeWithScore],
    events: Events,
    spans: SimpleSpanHandler,
) -> None:
    error = RuntimeError("the card fell off the bus")
    debug = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = BGERerank(
        reranker=FakeReranker(error=error), callback_manager=CallbackManager([debug])
    )

    with pytest.raises(RuntimeError, match="fell off") as raised:
        await postprocess(postprocessor, nodes, QUERY)

    assert raised.value is error
    start, end = _rerank_events(events)
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert end.nodes == []
    [[_, ended]] = debug.get_event_pairs(CBEventType.RERANKING)
    assert ended.payload == {EventPayload.EXCEPTION: error}
    assert len(spans.dropped_spans) == 1


async def test_a_call_that_fails_while_it_prunes_reports_no_nodes(
    postprocess: Postprocess, nodes: list[NodeWithScore], events: Events
) -> None:
    class CannotHighlight(FakeReranker):
        def score(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("the card fell off the bus")

    with pytest.raises(RuntimeError, match="fell off"):
        await postprocess(BGERerank(reranker=CannotHighlight(), prune=0.5), nodes, QUERY)

    _, end = _rerank_events(events)
    assert isinstance(end, ReRankEndEvent)
    assert end.nodes == []


async def test_a_cancelled_call_ends_what_it_started(
    nodes: list[NodeWithScore], events: Events
) -> None:
    class Waiting(FakeReranker):
        async def arerank(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(60)

    call = BGERerank(reranker=Waiting()).apostprocess_nodes(nodes, query_str=QUERY)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(call, timeout=0.05)

    assert [type(event) for event in _rerank_events(events)] == [ReRankStartEvent, ReRankEndEvent]


async def test_nothing_is_reported_without_nodes_or_query(
    postprocess: Postprocess, reranker: FakeReranker, nodes: list[NodeWithScore], events: Events
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = BGERerank(reranker=reranker, callback_manager=CallbackManager([debug]))

    await postprocess(postprocessor, [], QUERY)
    with pytest.raises(ValueError, match="Missing query"):
        await postprocess(postprocessor, nodes)

    assert _rerank_events(events) == []
    assert debug.get_events() == []


# --- settings, copies, serialization -----------------------------------------------------------


@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_n": 0}, {"metadata_mode": "some"}])
def test_wrong_settings_are_refused(reranker: FakeReranker, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        BGERerank(reranker=reranker, **settings)


@pytest.fixture
def shared(xlmr: str) -> Iterator[RerankEngine]:
    with RerankEngine.shared(xlmr, max_length=64, local_files_only=True) as engine:
        yield engine


@pytest.fixture
def settings(shared: RerankEngine, xlmr: str) -> dict[str, Any]:
    """Every setting, none at its default where the checkpoint allows."""
    return {
        "model": xlmr,
        "max_length": 64,
        "local_files_only": True,
        "top_n": 2,
        "score_threshold": 0.125,
        "keep_retrieval_score": True,
        "metadata_mode": MetadataMode.LLM,
    }


def _through_dict(given: BGERerank) -> BGERerank:
    return BGERerank.from_dict(given.to_dict())


def _through_json(given: BGERerank) -> BGERerank:
    return BGERerank.from_json(given.to_json())


def _through_pickle(given: BGERerank) -> BGERerank:
    return pickle.loads(pickle.dumps(given))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "round_trip",
    [
        _through_dict,
        _through_json,
        _through_pickle,
        copy.copy,
        copy.deepcopy,
        BGERerank.model_copy,
        lambda given: given.model_copy(deep=True),
    ],
    ids=["dict", "json", "pickle", "copy", "deepcopy", "model_copy", "model_copy_deep"],
)
def test_a_round_trip_keeps_the_settings_and_the_weights(
    round_trip: Callable[[BGERerank], BGERerank],
    shared: RerankEngine,
    settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = BGERerank(**settings)

    with caplog.at_level(logging.WARNING):
        restored = round_trip(given)

    assert restored.to_dict() == given.to_dict()
    assert settings.items() <= restored.to_dict().items()
    assert restored._find() == given._find() == shared
    assert caplog.records == []


def test_a_ready_engine_survives_every_round_trip(shared: RerankEngine) -> None:
    given = BGERerank(reranker=shared)

    assert _through_pickle(given)._find() == shared
    assert _through_json(given)._find() == shared


def test_a_reranker_that_cannot_be_pickled_is_not_lost_in_silence() -> None:
    reranker = FakeReranker()
    reranker.lock = threading.Lock()  # type: ignore[attr-defined]

    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(BGERerank(reranker=reranker))


def test_the_dict_holds_no_objects(reranker: FakeReranker) -> None:
    data = BGERerank(reranker=reranker).to_dict()

    assert data["class_name"] == "BGERerank"
    assert data["model"] == "fake"
    assert not {"reranker", "callback_manager"} & data.keys()


# --- with a model ------------------------------------------------------------------------------


async def test_sync_and_async_agree_with_the_engine(
    postprocess: Postprocess, shared: RerankEngine, nodes: list[NodeWithScore]
) -> None:
    texts = [scored.node.get_content() for scored in nodes]
    expected = shared.rerank(QUERY, texts)

    kept = await postprocess(BGERerank(reranker=shared, top_n=None), nodes, QUERY)

    assert _ids(kept) == [f"n{document.index}" for document in expected]
    assert [scored.score for scored in kept] == pytest.approx(
        [document.score for document in expected], abs=1e-6
    )


async def test_the_built_in_model_finds_the_answer(postprocess: Postprocess) -> None:
    texts = [
        "Bread is baked from flour, water, yeast and salt.",
        "A ship floats because it displaces its own weight of water.",
        "The parliament is elected every four years.",
    ]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]

    [best] = await postprocess(BGERerank(model="tiny", top_n=1), nodes, "why does a ship float?")

    assert best.text == texts[1]
    assert type(best.score) is float


# --- without LlamaIndex ------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["llama_index", "llama_index.core"])
def test_importing_without_the_framework_names_the_cure(missing: str) -> None:
    error, cause, message = import_without(missing, "bge_rerank_integrations.llama_index")

    assert (error, cause) == ("MissingExtraError", "ModuleNotFoundError")
    assert 'pip install "bge-rerank-integrations[llama-index]"' in message


def test_a_broken_framework_speaks_for_itself() -> None:
    error, _, message = import_without("dataclasses_json", "bge_rerank_integrations.llama_index")

    assert (error, message) == ("ModuleNotFoundError", "No module named 'dataclasses_json'")
