"""Sentences of documents with their scores, from an engine and from a service."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from fakes import FakeScorer, Logits, MakeEngine, TokenSequence, text_of

from bge_rerank_integrations import (
    InputError,
    NonFiniteScoreError,
    RemoteReranker,
    RerankEngine,
    ScoringError,
    highlighting,
)
from bge_rerank_integrations.highlighting import SentenceWindows, Span
from bge_rerank_integrations.ranking import Scores, sigmoid

Highlight = Callable[..., Awaitable[list[list[Span]]]]

DOCUMENTS = ["It floats. It sails.\n\nIt sank.", "", "Wood is light. Water is heavy."]
WINDOWS = [
    ["It floats.", "It floats. It sails.", "It sails.\n\nIt sank.", "It sank."],
    [],
    ["Wood is light.", "Wood is light. Water is heavy.", "Water is heavy."],
]
SENTENCES = [
    ["It floats. ", "It sails.\n\n", "It sank."],
    [],
    ["Wood is light. ", "Water is heavy."],
]


async def _sync(reranker: Any, *args: Any, **options: Any) -> list[list[Span]]:
    return reranker.highlight(*args, **options)  # type: ignore[no-any-return]


async def _async(reranker: Any, *args: Any, **options: Any) -> list[list[Span]]:
    return await reranker.ahighlight(*args, **options)  # type: ignore[no-any-return]


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def highlight(request: pytest.FixtureRequest) -> Highlight:
    """Every test with this fixture runs on both paths."""
    return request.param  # type: ignore[no-any-return]


async def test_every_sentence_has_the_mean_score_of_its_windows(
    engine: RerankEngine, highlight: Highlight
) -> None:
    found = await highlight(engine, "why", DOCUMENTS)

    assert [
        [document[span.start : span.end] for span in spans]
        for document, spans in zip(DOCUMENTS, found, strict=True)
    ] == SENTENCES
    for spans, windows in zip(found, WINDOWS, strict=True):
        logits = engine.score("why", windows)
        means = [(one + other) / 2 for one, other in pairwise(logits)]
        assert [span.score for span in spans] == pytest.approx(means)


async def test_scores_are_on_the_scale_that_the_call_asks_for(
    engine: RerankEngine, highlight: Highlight
) -> None:
    [spans] = await highlight(engine, "why", DOCUMENTS[:1], normalize=True)

    scores = engine.score("why", WINDOWS[0], normalize=True)
    # of scores from 0 to 1 the mean is geometric
    means = [math.sqrt(one * other) for one, other in pairwise(scores)]
    assert [span.score for span in spans] == pytest.approx(means)


@pytest.mark.parametrize(
    ("normalize", "activation"), [(True, "Sigmoid"), (True, "Identity"), (False, "Sigmoid")]
)
def test_other_documents_do_not_change_a_sentences_score(normalize: bool, activation: str) -> None:
    """Logits are 0.9 and 0.1 in one document; the other one's are in 0 to 1, or outside."""

    def first_spans(*others: float) -> list[Span]:
        scores = Scores.from_logits([0.9, 0.1, *others], normalize, activation)
        return SentenceWindows(["It sank.", "Why?"]).spans(scores)[0]

    spans = first_spans(0.4, 0.6)
    assert spans == first_spans(1.2, -3.0)
    if normalize and activation == "Sigmoid":
        assert spans[0].score == pytest.approx(math.sqrt(sigmoid(0.9) * sigmoid(0.1)))
    else:
        assert spans[0].score == pytest.approx(0.5)


async def test_a_service_may_leave_the_scale(highlight: Highlight) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        scores = [-0.1, 0.3, 0.5, 0.9, 0.4]
        results = [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
        return httpx.Response(200, json={"results": results})

    service = RemoteReranker("http://service", "jina", transport=httpx.MockTransport(handler))

    first, second = await highlight(service, "why", ["One. Two.", "Three."])

    assert [span.score for span in first] == [pytest.approx(0.1), pytest.approx(math.sqrt(0.15))]
    assert [span.score for span in second] == [pytest.approx(0.6)]


async def test_texts_are_split_beside_the_event_loop(
    engine: RerankEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, segment = set(), highlighting.sentencex.segment

    def noted(*arguments: str) -> list[str]:
        threads.add(threading.get_ident())
        return segment(*arguments)

    monkeypatch.setattr(highlighting.sentencex, "segment", noted)
    await engine.ahighlight("why", DOCUMENTS)
    assert threads
    assert threading.get_ident() not in threads


def test_no_documents_have_no_sentences(engine: RerankEngine) -> None:
    assert engine.highlight("why", []) == []


def test_documents_share_batches_and_equal_windows_are_scored_once(
    make_engine: MakeEngine,
) -> None:
    scorer = FakeScorer()
    engine = make_engine(scorer, max_batch_tokens=1000)

    engine.highlight("why", ["One. Two.", "One. Three.", "One. Two."])

    # "One.", "Two.", "Three.", "One. Two." and "One. Three.", each with the fake's digest before it
    assert [sorted(batch) for batch in scorer.batches] == [[5, 5, 7, 10, 12]]
    assert engine.stats().pairs == 9


def test_the_query_is_tokenized_once(xlmr: str) -> None:
    with RerankEngine(xlmr, device="cpu") as engine:
        engine.score("why", ["first"])
        before = engine.stats()
        engine.highlight("why", ["One. Two."])
        after = engine.stats()

    # three windows, and three looks for the query, which is known
    assert after.cache_misses - before.cache_misses == 3
    assert after.cache_hits - before.cache_hits == 3


def test_of_a_long_sentence_before_the_end_is_read(make_engine: MakeEngine) -> None:
    seen: list[str] = []

    def answer(batch: Sequence[TokenSequence]) -> Logits:
        seen.extend(map(text_of, batch))
        return np.zeros((len(batch), 1), dtype=np.float32)

    long = "word " * 300 + "end."
    make_engine(FakeScorer(answer), max_batch_tokens=5000).highlight("why", [f"{long} Next."])

    assert f"{long} "[-400:] + "Next." in seen


@pytest.mark.parametrize(("value", "kind"), [(np.nan, NonFiniteScoreError), (0.0, ScoringError)])
async def test_an_error_names_the_document_of_the_sentence(
    make_engine: MakeEngine, highlight: Highlight, value: float, kind: type[ScoringError]
) -> None:
    def answer(batch: Sequence[TokenSequence]) -> Logits:
        is_bad = np.array([[text_of(each).startswith("Wood")] for each in batch])
        if is_bad.any() and kind is ScoringError:
            raise ValueError("no wood")
        return np.where(is_bad, value, 0).astype(np.float32)

    with pytest.raises(kind) as raised:
        await highlight(make_engine(FakeScorer(answer)), "why", DOCUMENTS)

    assert (type(raised.value), raised.value.index) == (kind, 2)
    assert "document 2" in str(raised.value)


async def test_a_sentence_that_is_too_long_is_refused_by_its_document(
    engine: RerankEngine, highlight: Highlight
) -> None:
    with pytest.raises(InputError, match="document 1, in one of its sentences") as raised:
        await highlight(
            engine, "why", ["One.", "Two. " + "long " * 40], max_length=32, long_documents="refuse"
        )

    assert raised.value.index == 1


@pytest.mark.parametrize("documents", ["one text", ["One.", 2], ["One.", "\ud800"]])
async def test_what_is_no_text_is_refused_before_it_is_split(
    engine: RerankEngine, highlight: Highlight, documents: Any
) -> None:
    with pytest.raises(InputError, match="document"):
        await highlight(engine, "why", documents)


async def test_an_error_of_the_query_stays_as_it_is(
    engine: RerankEngine, highlight: Highlight
) -> None:
    with pytest.raises(InputError, match="query must be a string") as raised:
        await highlight(engine, 5, DOCUMENTS)

    assert raised.value.index is None
    assert raised.value.__cause__ is None


async def test_a_service_scores_the_same_windows(highlight: Highlight) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.extend(json.loads(request.content)["documents"])
        results = [{"index": i, "relevance_score": 2**-i} for i in range(len(asked))]
        return httpx.Response(200, json={"results": results})

    service = RemoteReranker("http://service", "jina", transport=httpx.MockTransport(handler))

    found = await highlight(service, "why", DOCUMENTS)

    assert asked == [window for windows in WINDOWS for window in windows]
    expected = [[2**-0.5, 2**-1.5, 2**-2.5], [], [2**-4.5, 2**-5.5]]
    assert [[span.score for span in spans] for spans in found] == [
        pytest.approx(scores) for scores in expected
    ]
