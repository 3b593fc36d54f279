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
    tokens_at,
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
    """One or eight relevant documents, far above the others: no fixed number fits both."""
    lists = [
        [Document(8.0 if place < relevant else -8.0, place < relevant, 10) for place in range(20)]
        for relevant in (1, 8)
    ]
    figures: Any = against_fixed(lists)
    at = {row["top_n"]: row for row in figures["at"]}

    assert figures["queries"] == 2
    assert (at[8]["recall"], at[8]["tokens"]) == (1.0, 80)
    ratios = at[8]["tokens of a rule over those of top_n"]
    for rule in (
        "score_threshold",
        "share of the best score",
        "largest gap of logits, and some more",
    ):
        assert ratios[rule] == pytest.approx(45 / 80, abs=1e-3)
