"""Quality of a ranking, measured by ir-measures (which uses trec_eval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.evaluation.collection import Relevance

PRIMARY = "nDCG@10"

Values = dict[str, dict[str, float]]
"""Measure → query id → value, from 0 to 1."""


def measure(
    relevance: Relevance, order: Mapping[str, Sequence[str]], top_n: Sequence[int] = (10,)
) -> Values:
    """nDCG@10, MRR@10, recall at each ``top_n``, and MAP, for every judged query.

    nDCG is trec_eval's, with the grades as gains. A query without results gets 0.

    :param order: query id → document ids, best first; any documents of one query.
    :param top_n: numbers of documents at which recall is measured.
    :raises ConfigurationError: for a ``top_n`` below 1.
    :raises MissingExtraError: if ir-measures is not installed.
    """
    measures = _measures(top_n)
    import ir_measures

    judged = {query: dict(grades) for query, grades in relevance.items()}
    values: Values = {name: dict.fromkeys(judged, 0.0) for name in measures.values()}
    for result in ir_measures.iter_calc(list(measures), judged, _as_scores(order)):
        values[measures[result.measure]][result.query_id] = float(result.value)
    return values


def means(values: Values) -> dict[str, float]:
    """Each measure's mean over the queries."""
    return {name: sum(each.values()) / len(each) for name, each in values.items()}


def _measures(top_n: Sequence[int]) -> dict[Any, str]:
    """Measure of ir-measures → its name in reports."""
    if any(count < 1 for count in top_n):
        raise ConfigurationError(f"top_n must be numbers of at least 1, got {list(top_n)}")
    try:
        from ir_measures import AP, RR, R, nDCG
    except ImportError as error:
        raise MissingExtraError("eval") from error
    recalls = {R @ count: f"recall@{count}" for count in sorted(set(top_n))}
    return {nDCG @ 10: PRIMARY, RR @ 10: "MRR@10", **recalls, AP: "MAP"}


def _as_scores(order: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    # ranks, not the system's scores: trec_eval breaks ties by id
    return {
        query: {document: -float(rank) for rank, document in enumerate(documents)}
        for query, documents in order.items()
    }
