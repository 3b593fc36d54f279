"""What holds for every query, every list of documents and every batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from fakes import FakeScorer, Logits, TokenSequence, digest, fake_engine
from fuzzing import IS_THOROUGH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bge_rerank_integrations import RerankEngine

# float32: what another batch may change
BATCH = 1e-5

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
documents = st.lists(texts, max_size=12)
some_documents = st.lists(texts, min_size=1, max_size=12)
top_ns = st.integers(1, 15)

# the engines live as long as the module: a property is no property of one example's engine
every = settings(
    max_examples=100 if IS_THOROUGH else 15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=["xlmr", "bert", "distilbert"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[RerankEngine]:
    """A packed encoder, one with token types, and a padded one; batches of a few documents."""
    path = request.getfixturevalue(request.param)
    with RerankEngine(path, device="cpu", dtype="float32", max_batch_tokens=100) as engine:
        yield engine


@pytest.fixture(scope="module")
def tied_engine() -> Iterator[RerankEngine]:
    """An engine that gives documents of equal length equal scores."""
    with fake_engine(FakeScorer(_lengths)) as engine:
        yield engine


def _lengths(batch: Sequence[TokenSequence]) -> Logits:
    return np.array([[len(pair) % 5] for pair in batch], np.float32)


@given(query=texts, documents=some_documents, order=st.randoms(use_true_random=False))
@every
def test_permuting_the_documents_permutes_the_scores(
    any_engine: RerankEngine, query: str, documents: list[str], order: object
) -> None:
    scores = any_engine.score(query, documents)
    shuffled = list(range(len(documents)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    again = any_engine.score(query, [documents[index] for index in shuffled])
    assert again == pytest.approx([scores[index] for index in shuffled], abs=BATCH)


@given(query=texts, documents=some_documents)
@every
def test_a_score_does_not_depend_on_its_neighbours(
    any_engine: RerankEngine, query: str, documents: list[str]
) -> None:
    together = any_engine.score(query, documents)
    alone = [any_engine.score(query, [document])[0] for document in documents]
    assert together == pytest.approx(alone, abs=BATCH)
    pairs = [("another query", "first"), *((query, document) for document in documents)]
    assert any_engine.score_pairs(pairs)[1:] == pytest.approx(alone, abs=BATCH)


@given(query=texts, documents=some_documents, repeated=st.lists(st.integers(0, 11), max_size=6))
@every
def test_equal_documents_have_equal_scores(
    any_engine: RerankEngine, query: str, documents: list[str], repeated: list[int]
) -> None:
    """To the last bit, wherever they stand."""
    asked = documents + [documents[index % len(documents)] for index in repeated]
    scores = any_engine.score(query, asked)
    for document, score in zip(asked, scores, strict=True):
        assert score == scores[asked.index(document)]


@given(query=texts, documents=documents, top_n=top_ns)
@every
def test_top_n_is_the_head_of_the_full_ranking(
    any_engine: RerankEngine, query: str, documents: list[str], top_n: int
) -> None:
    full = any_engine.rerank(query, documents)
    assert sorted(document.index for document in full) == list(range(len(documents)))
    assert any_engine.rerank(query, documents, top_n)[:] == full[:top_n]
    if full:
        threshold = full[len(full) // 2].score
        kept = any_engine.rerank(query, documents, score_threshold=threshold)
        assert kept[:] == tuple(document for document in full if document.score >= threshold)


@given(query=texts, documents=documents)
@every
def test_asking_again_answers_the_same(
    any_engine: RerankEngine, query: str, documents: list[str]
) -> None:
    """And so does asking for the ranked documents' ranking: it is the order that they are in."""
    ranking = any_engine.rerank(query, documents)
    assert any_engine.rerank(query, documents) == ranking
    in_order = [documents[document.index] for document in ranking]
    scores = any_engine.score(query, in_order)
    assert scores == pytest.approx([document.score for document in ranking], abs=BATCH)


@given(query=texts, documents=documents)
@every
def test_every_score_is_finite_and_in_order(
    any_engine: RerankEngine, query: str, documents: list[str]
) -> None:
    scores = [document.score for document in any_engine.rerank(query, documents)]
    assert all(type(score) is float and math.isfinite(score) for score in scores)
    assert all(0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)


@given(query=texts, documents=documents, top_n=st.none() | top_ns)
@every
def test_what_is_given_stays_as_it_is(
    any_engine: RerankEngine, query: str, documents: list[str], top_n: int | None
) -> None:
    pairs = [[query, document] for document in documents]
    before = copy.deepcopy((documents, pairs))
    any_engine.rerank(query, documents, top_n)
    any_engine.score_pairs(pairs)
    assert (documents, pairs) == before


@given(query=texts, documents=documents)
@every
def test_ties_keep_the_input_order(
    tied_engine: RerankEngine, query: str, documents: list[str]
) -> None:
    ranking = tied_engine.rerank(query, documents)
    assert [(-d.score, d.index) for d in ranking] == sorted(
        (-float((len(document) + 1) % 5), index) for index, document in enumerate(documents)
    )


def test_digests_tell_pairs_apart() -> None:
    """What the concurrency proof stands on."""
    pairs = {(f"q{n % 100}", "x" * (n % 60) + str(n)) for n in range(2_000)}
    assert len({digest(*pair) for pair in pairs}) > 0.999 * len(pairs)
