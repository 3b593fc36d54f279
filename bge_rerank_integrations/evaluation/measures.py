"""Quality of rankings, measured by ir-measures (which uses trec_eval), and its comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigurationError, MissingExtraError
from .collection import Relevance

PRIMARY = "nDCG@10"
RESAMPLES = 9999
# values of equal rankings can differ by rounding
_EQUAL = 1e-9

Values = dict[str, dict[str, float]]
"""Measure → query id → value, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A system compared with a baseline.

    :param baseline: name of the baseline.
    :param system: name of the system.
    :param difference: the system's mean minus the baseline's.
    :param wins: queries on which the system is better.
    :param losses: queries on which the baseline is better.
    :param ties: queries on which they are equal.
    :param p_value: two-sided p-value of the difference.
    """

    baseline: str
    system: str
    difference: float
    wins: int
    losses: int
    ties: int
    p_value: float


def measure(
    relevance: Relevance, order: Mapping[str, Sequence[str]], top_n: Sequence[int] = (10,)
) -> Values:
    """nDCG@10, MRR@10, recall at each ``top_n``, and MAP, for every judged query.

    nDCG is trec_eval's, with the grades as gains. A query without results gets 0.

    :param order: query id → document ids, best first; any documents of one query.
    :param top_n: cutoffs of recall, in documents.
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


def compare(
    baseline: str, before: Mapping[str, float], system: str, after: Mapping[str, float]
) -> Comparison:
    """Compare two systems by one measure.

    The p-value is that of the paired randomization test, which Smucker, Allan and Carterette
    (CIKM 2007) recommend for retrieval: :func:`scipy.stats.permutation_test`, seeded.

    :param before: query id → the baseline's value.
    :param after: query id → the system's value; of the same queries.
    :raises MissingExtraError: if SciPy is not installed.
    """
    differences = np.array([after[query] - before[query] for query in before])
    wins = int((differences > _EQUAL).sum())
    losses = int((differences < -_EQUAL).sum())
    return Comparison(
        baseline,
        system,
        difference=float(differences.mean()),
        wins=wins,
        losses=losses,
        ties=len(differences) - wins - losses,
        p_value=_p_value(differences) if wins or losses else 1.0,
    )


def _measures(top_n: Sequence[int]) -> dict[Any, str]:
    """Measure of ir-measures → its name in reports."""
    if any(count < 1 for count in top_n):
        raise ConfigurationError(f"top_n must be ints of at least 1, got {list(top_n)}")
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


def _p_value(differences: np.ndarray) -> float:
    try:
        from scipy.stats import permutation_test
    except ImportError as error:
        raise MissingExtraError("eval") from error
    if len(differences) == 1:
        # SciPy needs two; one difference has the same size with either sign
        return 1.0
    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,  # of the resamples: all at once fill gigabytes for thousands of queries
        rng=0,
    )
    return float(result.pvalue)
