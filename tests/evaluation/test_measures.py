"""Measures and comparisons."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.evaluation import compare, means, measure

NAMES = [f"d{number}" for number in range(12)]
GRADES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), min_size=1).filter(
    lambda grades: max(grades.values()) > 0
)
ORDERS = st.permutations(NAMES).flatmap(
    lambda names: st.integers(0, len(names)).map(lambda count: names[:count])
)


def ndcg(grades: dict[str, int], order: list[str]) -> float:
    """Järvelin and Kekäläinen 2002, with the grades as gains, over ten documents."""

    def gain(found: list[int]) -> float:
        return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(found[:10]))

    best = sorted(grades.values(), reverse=True)
    return gain([grades.get(document, 0) for document in order]) / gain(best)


@settings(max_examples=50, deadline=None)
@given(GRADES, ORDERS)
def test_ndcg_is_that_of_its_definition(grades: dict[str, int], order: list[str]) -> None:
    values = measure({"q": grades}, {"q": order})
    assert values["nDCG@10"]["q"] == pytest.approx(ndcg(grades, order))


@settings(max_examples=50, deadline=None)
@given(GRADES, ORDERS, st.integers(1, 12))
def test_recall_and_mrr_are_those_of_their_definitions(
    grades: dict[str, int], order: list[str], top_n: int
) -> None:
    relevant = {document for document, grade in grades.items() if grade > 0}
    ranks = [rank for rank, document in enumerate(order, start=1) if document in relevant]
    values = measure({"q": grades}, {"q": order}, [top_n])
    found = sum(rank <= top_n for rank in ranks)
    assert values[f"recall@{top_n}"]["q"] == pytest.approx(found / len(relevant))
    best = 1 / ranks[0] if ranks and ranks[0] <= 10 else 0.0
    assert values["MRR@10"]["q"] == pytest.approx(best)
    precisions = [(place + 1) / rank for place, rank in enumerate(ranks)]
    assert values["MAP"]["q"] == pytest.approx(sum(precisions) / len(relevant))


@settings(max_examples=30, deadline=None)
@given(GRADES, ORDERS, st.permutations(NAMES))
def test_the_names_of_documents_do_not_matter(
    grades: dict[str, int], order: list[str], names: list[str]
) -> None:
    renamed = dict(zip(NAMES, names, strict=True))
    other = {renamed[document]: grade for document, grade in grades.items()}
    assert measure({"q": grades}, {"q": order}) == measure(
        {"q": other}, {"q": [renamed[document] for document in order]}
    )


@pytest.mark.parametrize(("rank", "mrr", "ndcg"), [(10, 0.1, 0.2890648), (11, 0.0, 0.0)])
def test_what_comes_after_ten_documents_counts_for_map_alone(
    rank: int, mrr: float, ndcg: float
) -> None:
    values = means(measure({"q": {NAMES[rank - 1]: 1}}, {"q": NAMES}, [10]))
    assert values["MRR@10"] == pytest.approx(mrr)
    assert values["nDCG@10"] == pytest.approx(ndcg)
    assert values["recall@10"] == float(rank <= 10)
    assert values["MAP"] == pytest.approx(1 / rank)


def test_queries_without_an_answer_count_as_zero() -> None:
    values = measure({"a": {"d": 1}, "b": {"d": 1}}, {"a": ["d"]}, [3, 1, 3])
    assert means(values) == {
        "nDCG@10": 0.5,
        "MRR@10": 0.5,
        "recall@1": 0.5,
        "recall@3": 0.5,
        "MAP": 0.5,
    }


def test_top_n_is_checked() -> None:
    with pytest.raises(ConfigurationError, match=r"ints of at least 1, got \[0\]"):
        measure({"q": {"d": 1}}, {"q": ["d"]}, [0])


def test_wins_losses_and_ties_are_counted() -> None:
    before = {"a": 0.5, "b": 0.5, "c": 0.1 + 0.2}
    after = {"a": 1.0, "b": 0.25, "c": 0.3}
    comparison = compare("x", before, "y", after)
    assert (comparison.baseline, comparison.system) == ("x", "y")
    assert (comparison.wins, comparison.losses, comparison.ties) == (1, 1, 1)
    assert comparison.difference == pytest.approx(0.25 / 3)


def test_few_queries_are_tested_exactly() -> None:
    # 3 of 3 queries better: of the 8 ways to give signs, 2 make as large a difference
    zeros = dict.fromkeys("abc", 0.0)
    assert compare("x", zeros, "y", {"a": 0.5, "b": 0.25, "c": 0.125}).p_value == 0.25
    assert compare("x", {"a": 0.0}, "y", {"a": 1.0}).p_value == 1.0
    assert compare("x", zeros, "y", zeros).p_value == 1.0


def test_many_queries_that_agree_are_significant_and_the_test_is_seeded() -> None:
    before = {str(number): 0.5 for number in range(40)}
    after = {query: 0.5 + 0.01 * (int(query) % 4) for query in before}
    comparison = compare("x", before, "y", after)
    assert comparison.p_value < 0.001
    assert comparison == compare("x", before, "y", after)
    mirrored = compare("y", after, "x", before)
    assert mirrored.p_value == pytest.approx(comparison.p_value, abs=0.001)


def test_ir_measures_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"bge-rerank-integrations\[eval\]"):
        measure({"q": {"d": 1}}, {"q": ["d"]})


def test_scipy_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"bge-rerank-integrations\[eval\]"):
        compare("x", {"a": 0.0, "b": 0.0}, "y", {"a": 1.0, "b": 0.5})
