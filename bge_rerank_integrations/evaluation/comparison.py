"""Compare two systems on the same queries: wins, losses and significance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bge_rerank_integrations.errors import MissingExtraError

RESAMPLES = 9999
# values of equal rankings can differ by rounding
_EQUAL = 1e-9


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
