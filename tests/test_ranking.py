from __future__ import annotations

import copy
import itertools
import logging
import math
import pickle
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
from bge_rerank_integrations.calibration import Calibration
from bge_rerank_integrations.highlighting import SentenceWindows
from bge_rerank_integrations.ranking import Scores, TokenUsage, blend_ranks, rank, sigmoid

LOGITS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False))


def ranked(logits: list[float], *, normalize: bool = True, **selection: Any) -> Ranking:
    return rank(Scores.from_logits(logits, normalize=normalize), **selection)


def test_best_first_and_on_the_scale_asked_for() -> None:
    assert ranked([0.0, 2.0, -1.0], normalize=False).documents == (
        RankedDocument(1, 2.0),
        RankedDocument(0, 0.0),
        RankedDocument(2, -1.0),
    )
    assert ranked([0.0, 2.0], normalize=True)[1] == RankedDocument(0, 0.5)


def test_high_logits_stay_apart_after_normalization() -> None:
    first, second = ranked([25.4, 26.2])
    assert first.index == 1
    assert first.score > second.score


def test_threshold_keeps_scores_that_equal_it() -> None:
    assert [d.index for d in ranked([0.0, -1.0, 1.0], score_threshold=0.5)] == [2, 0]
    assert not ranked([-5.0], score_threshold=0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_names_its_document(bad: float) -> None:
    with pytest.raises(NonFiniteScoreError, match="document 1") as caught:
        ranked([0.0, bad, 1.0])
    assert caught.value.index == 1


@pytest.mark.parametrize("top_n", [0, -1, True, 1.0, "3"])
def test_top_n_must_be_a_positive_int(top_n: Any) -> None:
    with pytest.raises(ConfigurationError, match="top_n must be None or an int of at least 1"):
        ranked([1.0], top_n=top_n)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, "high", True])
def test_threshold_must_be_a_finite_number(threshold: Any) -> None:
    with pytest.raises(ConfigurationError, match="score_threshold must be"):
        ranked([1.0], score_threshold=threshold)


def test_scores_are_a_list_that_knows_its_logits() -> None:
    scores = Scores.from_logits([0.0, 2.0], normalize=True, usage=TokenUsage(9), model="m")
    assert scores == [0.5, sigmoid(2.0)]
    for same in (scores, pickle.loads(pickle.dumps(scores)), copy.deepcopy(scores)):
        assert same == scores
        assert (same.logits, same.total_tokens, same.model) == ([0.0, 2.0], 9, "m")
    ranking = rank(scores)
    assert (ranking.total_tokens, ranking.model) == (9, "m")


def test_usages_of_parts_are_joined_with_the_indices_of_the_whole() -> None:
    parts = [
        TokenUsage(30, [10, 20], [1], 1),
        TokenUsage(5, [5], query_truncated=True),
        TokenUsage(9, [4, 5], [0, 1], 2),
    ]
    whole = TokenUsage.joined(iter(parts))
    assert list(whole.pair_tokens) == [10, 20, 5, 4, 5]
    assert list(whole.truncated) == [1, 3, 4]
    assert (whole.total_tokens, whole.truncated_documents, whole.query_truncated) == (44, 3, True)
    assert not TokenUsage.joined(parts[::2]).query_truncated


def test_a_ranking_tells_what_was_truncated(caplog: pytest.LogCaptureFixture) -> None:
    usage = TokenUsage(9, truncated_documents=2, query_truncated=True)
    with caplog.at_level(logging.DEBUG):
        ranking = rank(Scores.from_logits([0.0, 2.0, 1.0], normalize=True, usage=usage), top_n=1)
    assert ranking.usage == usage
    assert caplog.messages == ["2 of 3 documents truncated"]
    rank(Scores.from_logits([0.0], normalize=True))
    assert len(caplog.messages) == 1


def test_equal_logits_may_have_an_order_of_their_own() -> None:
    scores = Scores.from_logits([1.0, 1.0, 3.0], normalize=True)
    assert [document.index for document in rank(scores, ties=[1, 2, 0])] == [2, 1, 0]


def test_a_ranking_is_a_sequence() -> None:
    ranking = Ranking((RankedDocument(1, 0.5), RankedDocument(0, 0.1)), TokenUsage(7), "m")
    assert len(ranking) == 2
    assert ranking[0].index == 1
    assert ranking[:1] == (RankedDocument(1, 0.5),)
    assert [document.index for document in ranking] == [1, 0]
    assert not Ranking()


@given(LOGITS)
def test_every_document_once_in_falling_order(logits: list[float]) -> None:
    ranking = ranked(logits, normalize=False)
    assert sorted(document.index for document in ranking) == list(range(len(logits)))
    assert all(a.score >= b.score for a, b in itertools.pairwise(ranking))


@given(LOGITS, st.integers(1, 5))
def test_top_n_is_a_prefix_of_the_whole(logits: list[float], top_n: int) -> None:
    assert ranked(logits, top_n=top_n)[:] == ranked(logits)[:top_n]


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0])))
def test_ties_keep_the_input_order(logits: list[float]) -> None:
    order = [document.index for document in ranked(logits)]
    assert order == sorted(order, key=lambda index: (-logits[index], index))


@given(LOGITS)
def test_normalizing_never_changes_the_order(logits: list[float]) -> None:
    assert [d.index for d in ranked(logits)] == [d.index for d in ranked(logits, normalize=False)]
    assert all(0 <= score <= 1 for score in Scores.from_logits(logits, normalize=True))


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-710.0)
def test_sigmoid_is_symmetric(logit: float) -> None:
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("normalize", "activation", "expected"),
    [
        (True, "Sigmoid", True),
        (True, Calibration("m", 2.0, 1.0), True),
        (True, "Tanh", False),
        (True, "Identity", False),
        (False, "Sigmoid", False),
    ],
)
def test_scores_know_whether_they_are_probabilities(
    normalize: bool, activation: Any, expected: bool
) -> None:
    """Sentences get the geometric mean of probabilities, and the mean of what may be below 0."""
    scores = Scores.from_logits([0.2, 0.8], normalize, activation)
    assert scores.are_probabilities == expected
    [[sentence]] = SentenceWindows(["one sentence"]).spans(scores)
    one, other = scores
    assert sentence.score == pytest.approx(
        math.sqrt(one * other) if expected else (one + other) / 2, abs=1e-9
    )


@given(st.permutations(range(30)), st.integers(0, 30))
def test_a_blend_ends_with_either_stage(reranked: list[int], n: int) -> None:
    """Of a part of what was retrieved, too: a threshold may have dropped the rest."""
    assert blend_ranks(reranked[:n], 0.0) == reranked[:n]
    assert blend_ranks(reranked[:n], 1.0) == sorted(reranked[:n])
    assert sorted(blend_ranks(reranked[:n], 0.3)) == sorted(reranked[:n])


def test_a_blend_is_of_reciprocal_ranks_and_ties_keep_the_retrieved_order() -> None:
    # 1/11 + 1/14, 1/12 + 1/13, 1/13 + 1/11, 1/14 + 1/12
    assert blend_ranks([2, 3, 1, 0], 0.5) == [2, 0, 1, 3]
    # first and second change places: equal sums
    assert blend_ranks([1, 0, 2], 0.5) == [0, 1, 2]
