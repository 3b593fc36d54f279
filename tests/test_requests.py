from __future__ import annotations

from typing import Any

import pytest

from bge_rerank_integrations import InputError
from bge_rerank_integrations.engine.scheduling.requests import (
    request_for_documents,
    request_for_pairs,
)


def test_equal_documents_are_scored_once() -> None:
    request = request_for_documents("q", ["a", "b", "a", "c", "b"])
    assert request.pairs == [("q", "a"), ("q", "b"), ("q", "c")]
    assert request.slots == [0, 1, 0, 2, 1]
    assert request.indices == [0, 1, 3]


def test_pairs_are_counted_from_the_first_index() -> None:
    request = request_for_pairs([("q", "a"), ["r", "a"], ("q", "a")], 100)
    assert request.pairs == [("q", "a"), ("r", "a")]
    assert request.indices == [100, 101]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "document 1 must be a string, got NoneType"),
        (b"bytes", "document 1 must be a string, got bytes"),
        (3, "document 1 must be a string, got int"),
        ("bad \ud800", r"document 1 holds a lone surrogate \('\\ud800' at character 4\)"),
    ],
)
def test_a_wrong_document_is_named(document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        request_for_documents("q", ["fine", document])
    assert caught.value.index == 1


@pytest.mark.parametrize("query", [None, "\udfff", 1])
def test_a_wrong_query_is_named(query: Any) -> None:
    with pytest.raises(InputError, match=r"^query ") as caught:
        request_for_documents(query, ["a"])
    assert caught.value.index is None


def test_one_string_is_not_a_list_of_documents() -> None:
    with pytest.raises(InputError, match="documents must be a sequence of strings"):
        request_for_documents("q", "abc")


@pytest.mark.parametrize("documents", [None, 5])
def test_no_list_at_all_is_no_list_of_documents(documents: Any) -> None:
    with pytest.raises(InputError, match=r"must be a sequence of strings, got (NoneType|int)"):
        request_for_documents("q", documents)


def test_documents_of_an_iterator_are_not_lost() -> None:
    documents: Any = iter(["a", "b"])
    assert request_for_documents("q", documents).pairs == [("q", "a"), ("q", "b")]


@pytest.mark.parametrize("pair", ["ab", ("q",), ("q", "d", "e"), None, ("q", None), (None, "d")])
def test_a_wrong_pair_is_named(pair: Any) -> None:
    with pytest.raises(InputError, match=r"pair 7") as caught:
        request_for_pairs([("q", "d"), pair], 6)
    assert caught.value.index == 7
