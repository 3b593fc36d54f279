"""The BM25 first stage."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_rerank_integrations.errors import MissingExtraError
from bge_rerank_integrations.evaluation.first_stage import BM25Index

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


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text("ab c", max_size=8), min_size=1, max_size=20),
    st.integers(1, 20),
)
def test_fewer_candidates_are_the_first_of_more(letters: list[str], candidates: int) -> None:
    # one-letter words are no words to BM25
    passages = [text.replace("a", "ape ").replace("b", "bee ") for text in letters]
    found = BM25Index(passages).search("ape bee bee", len(passages))
    assert BM25Index(passages).search("ape bee bee", candidates) == found[:candidates]
    assert found == sorted(found, key=lambda hit: (-hit.score, hit.index))


def test_stemming_finds_other_forms_of_a_word() -> None:
    assert indices(PASSAGES, "capitals") == []
    stemmed = BM25Index(PASSAGES, stemmed=True)
    assert [hit.index for hit in stemmed.search("capitals", 10)] == [1, 3, 2]


def test_the_parameters_of_bm25_reach_it() -> None:
    passages = ["cat", "cat dog dog dog dog", "cat cat cat dog dog dog dog"]
    # b = 0: length does not count; k1 = 0: repetition does not count
    assert [hit.index for hit in BM25Index(passages, b=0.0).search("cat", 3)] == [2, 0, 1]
    assert [hit.index for hit in BM25Index(passages, k1=0.0).search("cat", 3)] == [0, 1, 2]


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


@pytest.mark.parametrize("module", ["bm25s", "Stemmer"])
def test_what_stemming_needs_is_another_extra(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"bge-rerank-integrations\[eval\]"):
        BM25Index(PASSAGES, stemmed=True)
