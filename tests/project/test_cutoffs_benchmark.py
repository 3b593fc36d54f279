"""The rules of how many documents to keep, and how they are measured."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cutoffs import (
    RULES,
    Document,
    Point,
    against_fixed,
    largest_gap,
    share_of_best,
    share_of_sum,
    swept,
    tokens_at,
    transferred,
)


def test_rules_are_their_definitions() -> None:
    assert [largest_gap(scores) for scores in ([9.0, 8.0, 1.0, 0.5], [1.0, 1.0], [3.0], [])] == [
        2, 1, 1, 0,
    ]  # fmt: skip
    assert [share_of_best([0.8, 0.4, 0.39], share) for share in (1.0, 0.5, 0.4)] == [1, 2, 3]
    assert [share_of_sum([0.5, 0.25, 0.25], share) for share in (0.5, 0.6, 0.75, 1.0)] == [
        1, 2, 2, 3,
    ]  # fmt: skip


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=20))
def test_every_rule_keeps_the_best_document(logits: list[float]) -> None:
    logits.sort(reverse=True)
    for rule, parameters in RULES.values():
        assert all(rule(logits, parameter) >= 1 for parameter in parameters)


def test_tokens_are_read_off_between_two_points() -> None:
    sweep = [Point(0.5, 0.4, 100.0), Point(0.1, 0.8, 300.0), Point(0.2, 0.6, 400.0)]

    assert tokens_at(sweep, 0.4) == pytest.approx(100)
    assert tokens_at(sweep, 0.6) == pytest.approx(200)
    assert tokens_at(sweep, 0.9) is None


def test_a_rule_that_knows_where_to_stop_saves_tokens() -> None:
    """One or five relevant documents, far above the others: no fixed number fits both."""
    lists = [
        [Document(8.0 if place < relevant else -8.0, place < relevant, 10) for place in range(20)]
        for relevant in (1, 5)
    ]
    rows: Any = against_fixed(swept(lists))
    at = {row["top_n"]: row for row in rows}

    assert (at[5]["recall"], at[5]["tokens"]) == (1.0, 50)
    ratios = at[5]["tokens of a rule over those of top_n"]
    for rule in (
        "score_threshold",
        "share of the best score",
        "largest gap of logits, and some more",
    ):
        assert ratios[rule] == pytest.approx(30 / 50, abs=1e-3)


def test_a_parameter_is_the_one_of_the_other_collections() -> None:
    """One collection's logits are four times the other's."""

    def lists(scale: float) -> list[list[Document]]:
        logits = [2.0, 1.95, 1.9, 1.85, 1.8, *[1.0] * 15]
        return [[Document(scale * it, it > 1.0, 10) for it in logits]]

    sweeps = {"a": swept(lists(1.0)), "b": swept(lists(4.0))}
    rows: Any = transferred(sweeps, "a")
    margin = "logits within a margin of the best"
    at = {row["top_n"]: row["rules"][margin] for row in rows}

    # of b, a margin of 1 keeps the five relevant ones; of a, it keeps all twenty
    assert at[5] == {
        "parameter": 1.0,
        "recall": 1.0,
        "recall of top_n": 1.0,
        "tokens over those of a fixed number": 200 / 50,
    }
    # a margin of 0.5 keeps three of b, and the five of a
    assert at[3] == {
        "parameter": 0.5,
        "recall": 1.0,
        "recall of top_n": 0.6,
        "tokens over those of a fixed number": 1.0,
    }
    alone: Any = transferred({"a": sweeps["a"]}, "a")
    assert alone[0]["rules"][margin] is None
