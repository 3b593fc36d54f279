"""From a caller's texts to what is scored: equal pairs once, and wrong pairs named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from callers import expected
from fakes import FakeScorer, MakeEngine, fake_engine

from bge_rerank_integrations import InputError, RerankEngine


@pytest.fixture(scope="module")
def engine() -> Iterator[RerankEngine]:
    with fake_engine() as engine:
        yield engine


def test_equal_documents_are_scored_once(make_engine: MakeEngine) -> None:
    engine = make_engine(scorer := FakeScorer())
    documents = ["a", "b", "a", "c", "b"]
    assert engine.score("q", documents) == expected("q", documents)
    assert sum(map(len, scorer.batches)) == 3


async def test_the_tokens_of_all_chunks_of_a_stream_are_counted(make_engine: MakeEngine) -> None:
    engine = make_engine(max_queued_pairs=4)
    documents = ["a", "bc", "def", "ghij", "klmno"]
    pairs = [("q", document) for document in documents]
    tokens = sum(len(document) + 1 for document in documents)
    assert engine.score_pairs(pairs).total_tokens == tokens
    assert (await engine.ascore_pairs(pairs)).total_tokens == tokens


def test_statistics_count_equal_documents_as_often_as_they_were_given(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine()
    engine.score("q", ["a", "b", "a", "a"])
    engine.score_pairs([("q", "a"), ("q", "a")])
    assert (engine.stats().pairs, engine.stats().sequences) == (6, 3)


def test_equal_pairs_are_scored_once(make_engine: MakeEngine) -> None:
    engine = make_engine(scorer := FakeScorer())
    scores = engine.score_pairs([("q", "a"), ["r", "a"], ("q", "a")])
    assert scores == [*expected("q", ["a"]), *expected("r", ["a"]), *expected("q", ["a"])]
    assert sum(map(len, scorer.batches)) == 2


@pytest.mark.parametrize("pair", ["ab", ("q",), ("q", "d", "e"), None, ("q", None), (None, "d")])
def test_a_wrong_pair_is_named(engine: RerankEngine, pair: Any) -> None:
    with pytest.raises(InputError, match=r"pair 7") as caught:
        engine.score_pairs([*[("q", "d")] * 7, pair])
    assert caught.value.index == 7


async def test_documents_of_an_iterator_are_not_lost(engine: RerankEngine) -> None:
    def documents() -> Any:
        yield from ["a", "b", "a"]

    def pairs() -> Any:
        return (("q", document) for document in documents())

    scores = expected("q", ["a", "b", "a"])
    assert engine.score("q", documents()) == scores
    assert await engine.ascore("q", documents()) == scores
    assert engine.score_pairs(pairs()) == scores
    assert await engine.ascore_pairs(pairs()) == scores
    for ranking in (engine.rerank("q", documents()), await engine.arerank("q", documents())):
        assert {ranked.index: ranked.score for ranked in ranking} == dict(enumerate(scores))
