from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bge_rerank_integrations import (
    ConfigurationError,
    NonFiniteScoreError,
    RankedDocument,
    Ranking,
)
from bge_rerank_integrations.ranking import rank, sigmoid, to_scores

LOGITS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False))


def test_best_first_and_on_the_scale_asked_for() -> None:
    assert rank([0.0, 2.0, -1.0], normalize=False) == (
        RankedDocument(1, 2.0),
        RankedDocument(0, 0.0),
        RankedDocument(2, -1.0),
    )
    assert rank([0.0, 2.0], normalize=True)[1] == RankedDocument(0, 0.5)


def test_high_logits_stay_apart_after_normalization() -> None:
    first, second = rank([25.4, 26.2])
    assert first.index == 1
    assert first.score > second.score


def test_threshold_keeps_scores_that_equal_it() -> None:
    assert [d.index for d in rank([0.0, -1.0, 1.0], score_threshold=0.5)] == [2, 0]
    assert rank([-5.0], score_threshold=0.5) == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_names_its_document(bad: float) -> None:
    with pytest.raises(NonFiniteScoreError, match="document 1") as caught:
        rank([0.0, bad, 1.0])
    assert caught.value.index == 1


@pytest.mark.parametrize("top_n", [0, -1, True, 1.0, "3"])
def test_top_n_must_be_a_positive_int(top_n: Any) -> None:
    with pytest.raises(ConfigurationError, match="top_n must be None or an int of at least 1"):
        rank([1.0], top_n=top_n)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, "high", True])
def test_threshold_must_be_a_finite_number(threshold: Any) -> None:
    with pytest.raises(ConfigurationError, match="score_threshold must be"):
        rank([1.0], score_threshold=threshold)


def test_a_ranking_is_a_sequence() -> None:
    ranking = Ranking((RankedDocument(1, 0.5), RankedDocument(0, 0.1)), 7, "m")
    assert len(ranking) == 2
    assert ranking[0].index == 1
    assert ranking[:1] == (RankedDocument(1, 0.5),)
    assert [document.index for document in ranking] == [1, 0]
    assert not Ranking()


@given(LOGITS)
def test_every_document_once_in_falling_order(logits: list[float]) -> None:
    ranked = rank(logits, normalize=False)
    assert sorted(document.index for document in ranked) == list(range(len(logits)))
    assert all(a.score >= b.score for a, b in itertools.pairwise(ranked))


@given(LOGITS, st.integers(1, 5))
def test_top_n_is_a_prefix_of_the_whole(logits: list[float], top_n: int) -> None:
    assert rank(logits, top_n=top_n) == rank(logits)[:top_n]


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0])))
def test_ties_keep_the_input_order(logits: list[float]) -> None:
    order = [document.index for document in rank(logits)]
    assert order == sorted(order, key=lambda index: (-logits[index], index))


@given(LOGITS)
def test_normalizing_never_changes_the_order(logits: list[float]) -> None:
    assert [d.index for d in rank(logits)] == [d.index for d in rank(logits, normalize=False)]
    assert all(0 <= score <= 1 for score in to_scores(logits, normalize=True))


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-710.0)
def test_sigmoid_is_symmetric(logit: float) -> None:
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1.0)
