"""The BM25 first stage."""

from __future__ import annotations

import sys

import pytest

from bge_rerank_integrations.errors import MissingExtraError
from bge_rerank_integrations.first_stage import BM25Index

PASSAGES = [
    "Bananas are yellow.",
    "Berlin is the capital of Germany.",
    "Paris is the capital of France, and Paris is large.",
    "Berlin is the capital of Germany.",
]


def indices(passages: list[str], query: str, candidates: int = 10) -> list[int]:
    return [hit.index for hit in BM25Index(passages).search(query, candidates)]


def test_passages_that_share_more_words_come_first() -> None:
    assert indices(PASSAGES, "Paris, capital") == [2, 1, 3]


def test_scores_fall_and_are_plain_floats_above_zero() -> None:
    scores = [hit.score for hit in BM25Index(PASSAGES).search("Paris capital", 10)]
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is float and score > 0 for score in scores)


def test_ties_keep_the_order_of_the_passages() -> None:
    assert indices(PASSAGES, "Berlin") == [1, 3]


def test_no_more_than_the_candidates_asked_for() -> None:
    assert indices(PASSAGES, "capital", candidates=2) == [1, 3]


@pytest.mark.parametrize("query", ["", "the of is", "nowhere", "?!"])
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    assert indices(PASSAGES, query) == []


@pytest.mark.parametrize("passages", [[], [""], ["?!", "the"]])
def test_passages_without_words_are_never_found(passages: list[str]) -> None:
    assert indices(passages, "capital") == []
    assert len(BM25Index(passages)) == len(passages)


def test_bm25s_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"bge-rerank-integrations\[cli\]"):
        BM25Index(PASSAGES)
