"""A model's calibration on a user's judged queries, and how well it fits queries held out."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ..calibration import Calibration
from ..errors import ConfigurationError, MissingExtraError
from ..ranking import Scores, sigmoid
from .collection import Collection
from .runs import Run

# of the queries, to measure the fit
_HELD_OUT = 0.25
_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration, and how well it fits.

    :param calibration: fitted on all queries.
    :param collection: name of the collection.
    :param queries: how many there are.
    :param pairs: (query, document) pairs of them all.
    :param relevant: how many of these are relevant.
    :param held_out: queries that were held out of a fit on the others, to measure it.
    :param before: expected calibration error of the sigmoid on the queries held out, 0 to 1.
    :param after: that of the fit on the other queries.
    """

    calibration: Calibration
    collection: str
    queries: int
    pairs: int
    relevant: int
    held_out: int
    before: float
    after: float

    def about(self) -> dict[str, Any]:
        """How it was fitted, for the calibration's file."""
        return {
            "collection": self.collection,
            "queries": self.queries,
            "pairs": self.pairs,
            "relevant": self.relevant,
            "held_out_queries": self.held_out,
            "expected_calibration_error": {"before": self.before, "after": self.after},
        }


def logits_of(
    engine: Any, collection: Collection, first_stage: Run, *, show_progress: bool = False
) -> dict[str, Scores]:
    """Logits of every query's candidates, in the first stage's order.

    :param engine: a ``RerankEngine``.
    :param show_progress: show a progress bar on standard error.
    :raises RerankError: if a query or document cannot be scored.
    """
    queries = tqdm(collection.queries.items(), unit="query", disable=not show_progress)
    return {
        query: engine.score(
            text, [collection.documents[name] for name in first_stage.order[query]], normalize=False
        )
        for query, text in queries
    }


def calibrate(
    model: str,
    collection: Collection,
    first_stage: Run,
    logits: Mapping[str, Sequence[float]],
    weights: str = "",
) -> Calibrated:
    """Fit a model's calibration to judged queries.

    Candidates without a judgment count as irrelevant.

    :param model: its name.
    :param first_stage: the candidates.
    :param logits: of the candidates of each query.
    :param weights: the engine's ``weights_digest``.
    :raises ConfigurationError: for fewer than 4 queries, and as :func:`fit` says.
    :raises MissingExtraError: if SciPy is not installed.
    """
    queries = list(logits)
    held_out = random.Random(0).sample(queries, int(_HELD_OUT * len(queries)))
    if not held_out:
        raise ConfigurationError(f"calibration needs 4 judged queries or more, got {len(queries)}")
    pairs = {
        query: [
            (logit, collection.relevance[query].get(name, 0) > 0)
            for name, logit in zip(first_stage.order[query], logits[query], strict=True)
        ]
        for query in queries
    }
    every = [pair for query in queries for pair in pairs[query]]
    seen = [pair for query in queries if query not in set(held_out) for pair in pairs[query]]
    unseen = [pair for query in held_out for pair in pairs[query]]
    trial = Calibration(model, *_fit(seen))
    relevant = [is_relevant for _, is_relevant in unseen]
    return Calibrated(
        Calibration(model, *_fit(every), weights),
        collection.name,
        len(queries),
        len(every),
        sum(is_relevant for _, is_relevant in every),
        len(held_out),
        expected_calibration_error([sigmoid(logit) for logit, _ in unseen], relevant),
        expected_calibration_error([trial(logit) for logit, _ in unseen], relevant),
    )


def _fit(pairs: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    return fit([logit for logit, _ in pairs], [is_relevant for _, is_relevant in pairs])


def fit(logits: Sequence[float], relevant: Sequence[bool]) -> tuple[float, float]:
    """Fit scale and shift of logits by maximum likelihood.

    Platt, Probabilistic outputs for support vector machines, 1999, with his targets, which keep the
    probabilities of few pairs away from 0 and 1.

    :param logits: of judged pairs.
    :param relevant: whether each is relevant.
    :returns: scale and shift: ``sigmoid(scale * logit + shift)`` is the probability.
    :raises ConfigurationError: unless there are pairs of both kinds, and the relevant ones have
        larger logits on the whole.
    :raises MissingExtraError: if SciPy is not installed.
    """
    n_relevant = sum(relevant)
    n_other = len(relevant) - n_relevant
    if not n_relevant or not n_other:
        raise ConfigurationError(
            "calibration needs relevant pairs and others, got "
            f"{n_relevant} relevant ones of {len(relevant)}"
        )
    try:
        from scipy.optimize import minimize
        from scipy.special import expit
    except ImportError as error:
        raise MissingExtraError("eval") from error
    high, low = (n_relevant + 1) / (n_relevant + 2), 1 / (n_other + 2)
    targets = np.where(np.array(relevant), high, low)
    given = np.array(logits, dtype=np.float64)
    # the search is for numbers around 1, whatever the scale of the logits
    center, spread = float(given.mean()), float(given.std()) or 1.0
    inputs = np.stack([(given - center) / spread, np.ones_like(given)])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross entropy, and its gradient."""
        values = weights @ inputs
        gradient = inputs @ (expit(values) - targets) / len(targets)
        return float(np.mean(np.logaddexp(0, values) - values * targets)), gradient

    start = (0.0, math.log((n_relevant + 1) / (n_other + 1)))
    scale, shift = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
    if scale <= 0:
        raise ConfigurationError(
            "the model ranks irrelevant documents above relevant ones: no scale above 0 fits"
        )
    return float(scale / spread), float(shift - scale * center / spread)


def expected_calibration_error(
    probabilities: Sequence[float], relevant: Sequence[bool], bins: int = _BINS
) -> float:
    """How far probabilities are from the shares of relevant pairs, 0 to 1.

    The mean over bins of equal width, weighted by their pairs, of the difference between mean
    probability and share (Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities
    using Bayesian binning, 2015).

    :param probabilities: from 0 to 1, one a pair.
    """
    differences = [0.0] * bins
    for probability, is_relevant in zip(probabilities, relevant, strict=True):
        differences[min(int(probability * bins), bins - 1)] += probability - is_relevant
    return sum(map(abs, differences)) / max(len(probabilities), 1)
