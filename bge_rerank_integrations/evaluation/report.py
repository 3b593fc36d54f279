"""Metrics of all systems on one collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from .collection import Collection
from .measures import PRIMARY, Comparison, Values, compare, means, measure
from .runs import Run, at_depth, blend

#: numbers of candidates in the curve of a report
DEPTHS = (5, 10, 20, 50, 100)


@dataclass(frozen=True)
class System:
    """Metrics of one system.

    :param means: measure → mean over the queries, from 0 to 1.
    :param values: measure → query id → value.
    :param mean_ms: mean milliseconds per query; None if not measured.
    :param p95_ms: 95th percentile of the milliseconds per query.
    :param pairs: (query, document) pairs that a model scored.
    :param tokens: tokens that it read for them.
    """

    name: str
    means: dict[str, float]
    values: Values
    mean_ms: float | None
    p95_ms: float | None
    pairs: int
    tokens: int


@dataclass(frozen=True)
class Report:
    """Results of an evaluation.

    :param collection: the collection's name.
    :param queries: number of queries.
    :param documents: number of documents.
    :param systems: the first stage, then the rerankers.
    :param comparisons: every two systems, by nDCG@10.
    :param depths: reranker → candidates that it is given → nDCG@10.
    :param notes: what was left out.
    """

    collection: str
    queries: int
    documents: int
    systems: tuple[System, ...]
    comparisons: tuple[Comparison, ...]
    depths: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Headers, then one row of strings per system."""
        names = list(self.systems[0].means)
        yield ("system", *names, "ms/query", "95 %", "pairs", "tokens")
        for system in self.systems:
            yield (
                system.name,
                *(f"{system.means[name]:.4f}" for name in names),
                *("–" if ms is None else f"{ms:.1f}" for ms in (system.mean_ms, system.p95_ms)),
                str(system.pairs),
                str(system.tokens),
            )

    def comparison_rows(self) -> Iterator[tuple[str, ...]]:
        """Headers, then one row of strings per comparison."""
        yield ("compared", PRIMARY, "wins", "ties", "losses", "p")
        for pair in self.comparisons:
            yield (
                f"{pair.system} against {pair.baseline}",
                f"{pair.difference:+.4f}",
                str(pair.wins),
                str(pair.ties),
                str(pair.losses),
                "<0.001" if pair.p_value < 0.001 else f"{pair.p_value:.3f}",
            )

    def depth_rows(self) -> Iterator[tuple[str, ...]]:
        """Headers, then one row of strings per reranker."""
        columns = sorted({depth for curve in self.depths.values() for depth in curve})
        yield (f"{PRIMARY} by candidates", *map(str, columns))
        for name, curve in self.depths.items():
            yield (name, *(f"{curve[depth]:.4f}" for depth in columns))

    def as_dict(self) -> dict[str, Any]:
        """The report with each query's values, ready for JSON."""
        return asdict(self)


def summarize(
    collection: Collection,
    runs: Sequence[Run],
    top_n: Sequence[int] = (10,),
    retrieval_weight: float | None = None,
) -> Report:
    """Measure the runs, and compare each pair of them.

    :param runs: the first stage, then the rerankers.
    :param top_n: cutoffs of recall, in documents.
    :param retrieval_weight: measure each reranker blended with the first stage, too.
    :raises ConfigurationError: for a ``top_n`` below 1.
    :raises MissingExtraError: if ir-measures or SciPy is not installed.
    """
    first_stage, *rerankers = runs
    measured = [first_stage]
    depths = {}
    for run in rerankers:
        curves = {depth: at_depth(run, first_stage, depth) for depth in _depths(first_stage)}
        measured.append(run)
        depths[run.name] = _curve(collection, curves)
        if retrieval_weight is not None:
            blended = blend(run, first_stage, retrieval_weight)
            measured.append(blended)
            depths[blended.name] = _curve(
                collection,
                {d: blend(cut, first_stage, retrieval_weight) for d, cut in curves.items()},
            )
    systems = tuple(_system(collection, run, top_n) for run in measured)
    return Report(
        collection=collection.name,
        queries=len(collection.queries),
        documents=len(collection.documents),
        systems=systems,
        comparisons=tuple(
            compare(before.name, before.values[PRIMARY], after.name, after.values[PRIMARY])
            for before, after in combinations(systems, 2)
        ),
        depths=depths,
        notes=(*collection.notes, *_wiring(first_stage, rerankers, top_n)),
    )


def _wiring(first_stage: Run, rerankers: Sequence[Run], top_n: Sequence[int]) -> Iterator[str]:
    """What reranking cannot help, in words."""
    lists = [found for found in first_stage.order.values() if len(found) > 1]
    most = max(map(len, lists), default=0)
    if rerankers and 0 < most <= min(top_n):
        yield f"recall@{min(top_n)} cannot change: a query has {most} candidates at most"
    for run in rerankers:
        scored = [scores for scores in run.scores.values() if len(scores) > 2]
        if scored and all(len(set(scores)) == 1 for scores in scored):
            yield f"{run.name}: the scores of each query are all equal, they say nothing"
        if len(lists) > 4 and dict(run.order) == dict(first_stage.order):
            yield f"{run.name}: the candidates came in this reranker's own order"
        if run.truncated > run.pairs / 2:
            share = f"{run.truncated} of {run.pairs} documents"
            yield f"{run.name}: the ends of {share} were not read (max_length, long_documents)"


def _depths(first_stage: Run) -> list[int]:
    """Numbers of candidates that the first stage can give, of :data:`DEPTHS`."""
    most = max(map(len, first_stage.order.values()), default=0)
    return [depth for depth in DEPTHS if depth < most] + [most]


def _curve(collection: Collection, runs: Mapping[int, Run]) -> dict[int, float]:
    return {
        depth: means(measure(collection.relevance, run.order))[PRIMARY]
        for depth, run in runs.items()
    }


def _system(collection: Collection, run: Run, top_n: Sequence[int]) -> System:
    values = measure(collection.relevance, run.order, top_n)
    milliseconds = [seconds * 1000 for seconds in run.seconds.values()]
    return System(
        name=run.name,
        means=means(values),
        values=values,
        mean_ms=float(np.mean(milliseconds)) if milliseconds else None,
        p95_ms=float(np.percentile(milliseconds, 95)) if milliseconds else None,
        pairs=run.pairs,
        tokens=run.tokens,
    )
