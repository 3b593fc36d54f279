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


@pytest.mark.parametrize("pair", ["ab", ("q",), ("q", "d", "e"), None, ("q", None), (None, "d")])
def test_a_wrong_pair_is_named(pair: Any) -> None:
    with pytest.raises(InputError, match=r"pair 7") as caught:
        request_for_pairs([("q", "d"), pair], 6)
    assert caught.value.index == 7
