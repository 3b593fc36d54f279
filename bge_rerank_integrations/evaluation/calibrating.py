"""A model's calibration on a user's judged queries, and how well it fits queries held out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from bge_rerank_integrations.context.calibration import Calibration, expected_calibration_error
from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.runs import Run
from bge_rerank_integrations.ranking import Scores, sigmoid

# of the queries, to measure the fit
_HELD_OUT = 0.25


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
    model: str, collection: Collection, first_stage: Run, logits: Mapping[str, Sequence[float]]
) -> Calibrated:
    """Fit a model's calibration to judged queries.

    Candidates without a judgment count as irrelevant.

    :param model: its name.
    :param first_stage: the candidates.
    :param logits: of the candidates of each query.
    :raises ConfigurationError: for fewer than 4 queries, and as :meth:`Calibration.fit` says.
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
    fitted = _fit(model, seen)
    relevant = [is_relevant for _, is_relevant in unseen]
    return Calibrated(
        _fit(model, every),
        collection.name,
        len(queries),
        len(every),
        sum(is_relevant for _, is_relevant in every),
        len(held_out),
        expected_calibration_error([sigmoid(logit) for logit, _ in unseen], relevant),
        expected_calibration_error([fitted(logit) for logit, _ in unseen], relevant),
    )


def _fit(model: str, pairs: Sequence[tuple[float, bool]]) -> Calibration:
    return Calibration.fit(
        model, [logit for logit, _ in pairs], [is_relevant for _, is_relevant in pairs]
    )
