"""Rules of how many documents to keep, against the best fixed top_n at equal recall.

python -m benchmarks.cutoffs tiny --collection qed-nq-dev/corpus_large.jsonl \
    --collection trecqa-wang/dev.jsonl --collection vaswani/corpus.jsonl \
    --collection scifact-test/corpus.jsonl --collection xquad-en/corpus.jsonl \
    --depth 20 --queries 60 --output benchmarks/results/cutoffs.json

Each rule is swept over its parameter. Where its recall reaches that of a fixed ``top_n``, its
tokens are divided by those of that ``top_n``: below 1 it saves tokens. Between two points of a
sweep, tokens are interpolated. This shows a rule at its best: with the parameter that fits the
collection.

What a user gets is a parameter that others chose: for every collection, it is the one that takes
the fewest tokens on the other collections given where it reaches the fixed ``top_n``'s recall, on
their average. It has a recall of its own on the collection, and its tokens are divided by those of
the fixed number of documents, a fraction in between included, that has this recall.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import mean

from benchmarks.machine import describe_machine
from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation.collection import (
    Collection,
    read_beir,
    read_candidate_lists,
)
from bge_rerank_integrations.evaluation.runs import bm25
from bge_rerank_integrations.ranking import sigmoid

TOP_N = (3, 5)
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *(step / 20 for step in range(2, 20)), 0.98, 0.99)
MARGINS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
EXTRA = tuple(range(20))

# the rule that the others are measured against
FIXED = "top_n"

# logits, best first, and the parameter → how many to keep
Rule = Callable[[Sequence[float], float], int]


@dataclass(frozen=True)
class Document:
    """A ranked document of one query."""

    logit: float
    is_relevant: bool
    tokens: int


@dataclass(frozen=True)
class Point:
    """What a rule keeps on average, with one value of its parameter."""

    parameter: float
    recall: float
    tokens: float


# rule → what it keeps, by parameter
Sweeps = Mapping[str, Sequence[Point]]


def largest_gap(scores: Sequence[float]) -> int:
    """Documents before the largest gap between neighbors; all if there are fewer than two.

    Taguchi, Maekawa and Bhutani, Efficient context selection for long-context QA: no tuning, no
    iteration, just adaptive-k, arXiv 2506.08479.

    :param scores: best first.
    """
    gaps = [better - worse for better, worse in pairwise(scores)]
    return gaps.index(max(gaps)) + 1 if gaps else len(scores)


def share_of_best(scores: Sequence[float], share: float) -> int:
    """Documents that score at least this share of the best score.

    :param scores: best first, none below 0.
    :param share: above 0 and up to 1.
    """
    return sum(score >= share * scores[0] for score in scores)


def share_of_sum(scores: Sequence[float], share: float) -> int:
    """The fewest documents that have this share of the sum of all scores.

    Of probabilities of relevance, the sum is how many relevant documents there are to be expected;
    so this expects the share of these to be kept. It is what nucleus sampling does with tokens
    (Holtzman et al., The curious case of neural text degeneration, 2020).

    :param scores: best first, none below 0.
    :param share: above 0 and up to 1.
    """
    sums = list(accumulate(scores))
    return next((n for n, partial in enumerate(sums, 1) if partial >= share * sums[-1]), len(sums))


def _fixed(logits: Sequence[float], top_n: float) -> int:
    return min(len(logits), int(top_n))


def _probabilities(logits: Sequence[float]) -> list[float]:
    return [sigmoid(logit) for logit in logits]


RULES: Mapping[str, tuple[Rule, Sequence[float]]] = {
    "score_threshold": (
        lambda logits, least: max(sum(it >= least for it in _probabilities(logits)), 1),
        SHARES,
    ),
    "share of the best score": (
        lambda logits, share: share_of_best(_probabilities(logits), share),
        SHARES,
    ),
    "share of the sum of scores": (
        lambda logits, share: share_of_sum(_probabilities(logits), share),
        SHARES,
    ),
    "logits within a margin of the best": (
        lambda logits, margin: sum(logit >= logits[0] - margin for logit in logits),
        MARGINS,
    ),
    "largest gap of logits, and some more": (
        lambda logits, extra: largest_gap(logits) + int(extra),
        EXTRA,
    ),
    "largest gap of scores, and some more": (
        lambda logits, extra: largest_gap(_probabilities(logits)) + int(extra),
        EXTRA,
    ),
}


def main() -> None:
    """Score the collections, sweep the rules and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument(
        "--collection",
        action="append",
        required=True,
        type=Path,
        help="the corpus file of a BEIR folder, or a .jsonl file of candidate lists",
    )
    parser.add_argument("--depth", type=int, default=30, help="candidates of BM25 a query")
    parser.add_argument("--queries", type=int, default=200, help="a sample of so many")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, object] = {
        "model": Path(arguments.model).name,
        "max_length": arguments.max_length,
        "depth": arguments.depth,
        "most_queries": arguments.queries,
        "collections": {},
    }
    with RerankEngine(arguments.model, max_length=arguments.max_length) as engine:
        lists = {
            f"{given.parent.name}/{given.stem}": ranked_lists(
                engine, given, arguments.depth, arguments.queries
            )
            for given in arguments.collection
        }
    sweeps = {name: swept(its) for name, its in lists.items()}
    figures["collections"] = {
        name: {
            "queries": len(its),
            "at": against_fixed(sweeps[name]),
            "with the other collections' parameter": transferred(sweeps, name),
        }
        for name, its in lists.items()
    }
    figures["machine"] = describe_machine()
    print(json.dumps(figures, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def read_collection(path: Path) -> Collection:
    """What a path names: the corpus file of a BEIR folder, or a file of candidate lists."""
    is_corpus = (path.parent / "queries.jsonl").is_file()
    return read_beir(path.parent, path.name) if is_corpus else read_candidate_lists(path)


def ranked_lists(
    engine: RerankEngine, path: Path, depth: int, queries: int
) -> list[list[Document]]:
    """Every query's reranked candidates, best first, of queries that have a relevant one."""
    collection = read_collection(path).sample(queries)
    candidates = bm25(collection, depth).order
    lists = []
    for query, text in collection.queries.items():
        names = candidates[query]
        texts = [collection.documents[name] for name in names]
        scores = engine.score(text, texts, normalize=False)
        grades = collection.relevance[query]
        documents = [
            Document(logit, grades.get(name, 0) > 0, tokens)
            for name, logit, tokens in zip(names, scores, scores.usage.pair_tokens, strict=True)
        ]
        if any(document.is_relevant for document in documents):
            lists.append(sorted(documents, key=lambda document: -document.logit))
    return lists


def swept(lists: Sequence[Sequence[Document]]) -> Sweeps:
    """Every rule, and the fixed numbers of documents, over their parameters."""
    numbers = range(1, max(map(len, lists)) + 1)
    return {
        name: [_point(lists, rule, parameter) for parameter in parameters]
        for name, (rule, parameters) in {**RULES, FIXED: (_fixed, numbers)}.items()
    }


def against_fixed(sweeps: Sweeps) -> list[dict[str, object]]:
    """Tokens of every rule over those of the fixed ``top_n`` with the same recall."""
    rows = []
    for top_n in TOP_N:
        fixed = _at_top_n(sweeps, top_n)
        ratios = {
            name: None if tokens is None else round(tokens / fixed.tokens, 3)
            for name, tokens in ((name, tokens_at(sweeps[name], fixed.recall)) for name in RULES)
        }
        rows.append(
            {
                "top_n": top_n,
                "recall": round(fixed.recall, 3),
                "tokens": round(fixed.tokens),
                "tokens of a rule over those of top_n": ratios,
            }
        )
    return rows


def transferred(sweeps: Mapping[str, Sweeps], name: str) -> list[dict[str, object]]:
    """What every rule keeps of a collection, with the parameter that the others choose."""
    own, others = sweeps[name], [its for other, its in sweeps.items() if other != name]
    return [
        {
            "top_n": top_n,
            "rules": {
                rule: _of_others(own, others, rule, top_n) if others else None for rule in RULES
            },
        }
        for top_n in TOP_N
    ]


def _of_others(
    own: Sweeps, others: Sequence[Sweeps], rule: str, top_n: int
) -> dict[str, float] | None:
    """One rule on a collection; None if no parameter has the recall of ``top_n`` on the others."""
    fixed = [_at_top_n(sweeps, top_n) for sweeps in others]
    aim = mean(point.recall for point in fixed)
    costs = {}
    for place, points in enumerate(zip(*(sweeps[rule] for sweeps in others), strict=True)):
        if mean(point.recall for point in points) >= aim:
            # of each collection the share, or the one with the longest documents would decide
            costs[place] = mean(
                point.tokens / least.tokens for point, least in zip(points, fixed, strict=True)
            )
    if not costs:
        return None
    point = own[rule][min(costs, key=costs.__getitem__)]
    tokens = tokens_at(own[FIXED], point.recall)
    assert tokens is not None  # all documents have the recall of any of them
    return {
        "parameter": point.parameter,
        "recall": round(point.recall, 3),
        "recall of top_n": round(_at_top_n(own, top_n).recall, 3),
        "tokens over those of a fixed number": round(point.tokens / tokens, 3),
    }


def _at_top_n(sweeps: Sweeps, top_n: int) -> Point:
    return sweeps[FIXED][min(top_n, len(sweeps[FIXED])) - 1]


def _point(lists: Sequence[Sequence[Document]], rule: Rule, parameter: float) -> Point:
    recalls, tokens = [], []
    for documents in lists:
        kept = documents[: rule([document.logit for document in documents], parameter)]
        relevant = sum(document.is_relevant for document in documents)
        recalls.append(sum(document.is_relevant for document in kept) / relevant)
        tokens.append(sum(document.tokens for document in kept))
    return Point(parameter, mean(recalls), mean(tokens))


def tokens_at(sweep: Sequence[Point], recall: float) -> float | None:
    """The fewest tokens for this recall, interpolated between points; None if it is not reached."""
    before = Point(0, 0.0, 0.0)
    for point in sorted(sweep, key=lambda point: point.tokens):
        if point.recall >= recall:
            part = (recall - before.recall) / (point.recall - before.recall)
            return before.tokens + part * (point.tokens - before.tokens)
        if point.recall > before.recall:
            before = point
    return None


if __name__ == "__main__":
    main()
