"""How much of the evaluation collections was trained on, and the SciFact figures split by it.

scifact-test shares its corpus with scifact-train, so relevant abstracts of its claims were
positives of other claims in training. The large corpus of qed-nq-dev has training passages as
distractors.

python -m training.seen --pairs mix.jsonl --collections collections \
    --model bge_rerank_integrations/models/tiny --out training/results-seen.json
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import (
    Collection,
    bm25,
    measure,
    read_beir,
    rerank,
    text_only,
    titled,
)
from bge_rerank_integrations.evaluation.measures import PRIMARY
from training.evaluate import DTYPES, Figures, first_ranks, write
from training.prepare import hold_out
from training.records import Data, load, normalized

ALL, SOME, NONE, UNRELATED = (
    "all relevant abstracts trained on",
    "some relevant abstracts trained on",
    "no relevant abstract trained on",
    "no relevant abstract trained on, no similar claim",
)
NEAR_TWIN = 0.8
SIMILAR = 0.6
RESAMPLES = 10_000


def trained_positives(data: Data) -> set[str]:
    """Normalized texts of all passages that answer a training question."""
    return {normalized(p.text) for question in data.questions for p in question.positives}


def similarity(first: str, second: str) -> float:
    """Jaccard index of the sets of words, 0 to 1."""
    a, b = (set(normalized(text).split()) for text in (first, second))
    return len(a & b) / len(a | b)


def split(collection: Collection, seen: set[str], claims: Sequence[str]) -> dict[str, list[str]]:
    """Ids of the queries in each group.

    :param collection: with documents that are texts alone, as in training.
    :param seen: normalized texts of the positives of training.
    :param claims: the queries of training.
    """
    groups: dict[str, list[str]] = {name: [] for name in (ALL, SOME, NONE, UNRELATED)}
    for query, grades in collection.relevance.items():
        relevant = [name for name, grade in grades.items() if grade > 0]
        known = [normalized(collection.documents[name]) in seen for name in relevant]
        groups[ALL if all(known) else SOME if any(known) else NONE].append(query)
        if not any(known) and closest(collection.queries[query], claims) < SIMILAR:
            groups[UNRELATED].append(query)
    return groups


def closest(query: str, claims: Iterable[str]) -> float:
    """Similarity of the most similar training query."""
    return max((similarity(query, claim) for claim in claims), default=0.0)


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> Figures:
    """Means before and after, and the difference with its 95 % bootstrap interval."""
    gains = np.array([after[query] - before[query] for query in before])
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.percentile(gains[draws].mean(axis=1), [2.5, 97.5])
    return {
        "queries": float(len(gains)),
        "bm25": float(np.mean(list(before.values()))),
        "reranked": float(np.mean(list(after.values()))),
        "difference": float(gains.mean()),
        "difference, low": float(low),
        "difference, high": float(high),
    }


def question_counts(data: Data) -> Figures:
    """How many questions of each set are trained on; the held-out ones are counted apart."""
    training, held_out = hold_out(data.questions)
    counts = Counter(question.source for _, question in training)
    return {
        "all": float(len(training)),
        "held out": float(len(held_out)),
        **{source: float(count) for source, count in counts.most_common()},
    }


def scifact_counts(test: Collection, data: Data) -> Figures:
    """How many relevant abstracts and claims of scifact-test training has met."""
    seen = trained_positives(data)
    pool = {normalized(passage.text) for passage in data.pools["scifact-train"]}
    claims = [q.query for q in data.questions if q.source == "scifact-train"]
    relevant = {
        name for grades in test.relevance.values() for name, grade in grades.items() if grade > 0
    }
    texts = [normalized(test.documents[name]) for name in relevant]
    return {
        "relevant abstracts": float(len(relevant)),
        "positives in training": float(sum(text in seen for text in texts)),
        "possible negatives in training": float(sum(text in pool for text in texts)),
        "claims": float(len(test.queries)),
        "claims with a near twin in training": float(
            sum(closest(text, claims) >= NEAR_TWIN for text in test.queries.values())
        ),
    }


def qed_counts(collections: Path, data: Data) -> Figures:
    """How much of the corpora of qed-nq-dev was trained on."""
    seen = trained_positives(data)
    counts: Figures = {}
    for name, file in (("small", "corpus.jsonl"), ("large", "corpus_large.jsonl")):
        documents = read_beir(collections / "qed-nq-dev", file, text_only).documents.values()
        trained = sum(normalized(text) in seen for text in documents)
        counts[f"passages, {name} corpus"] = float(len(documents))
        counts[f"trained on, {name} corpus"] = float(trained)
        counts[f"share trained on, {name} corpus"] = trained / len(documents)
    return counts


def main() -> None:
    """Print the counts and the split figures, and write them."""
    parser = argparse.ArgumentParser(description="Split figures by what was trained on.")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder, hub id or 'tiny'")
    parser.add_argument("--depth", type=int, nargs="+", default=[20])
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    data = load(arguments.pairs, arguments.collections)
    folder = arguments.collections / "scifact-test"
    texts = read_beir(folder, form=text_only)
    claims = [q.query for q in data.questions if q.source == "scifact-train"]
    groups = split(texts, trained_positives(data), claims)
    results: dict[str, Figures] = {
        "training questions": question_counts(data),
        "scifact-test": scifact_counts(texts, data),
        "qed-nq-dev": qed_counts(arguments.collections, data),
    }
    print(json.dumps(results, indent=1), flush=True)

    collection = read_beir(folder, form=titled)
    first_stage = bm25(collection, max(arguments.depth))
    with RerankEngine(model=arguments.model, max_length=512, dtype=arguments.dtype) as engine:
        run = rerank("reranked", engine, collection, first_stage, show_progress=True)
    before = measure(collection.relevance, first_stage.order)[PRIMARY]
    for depth in arguments.depth:
        after = measure(collection.relevance, first_ranks(first_stage, run, depth))[PRIMARY]
        for group, queries in {"all claims": list(before), **groups}.items():
            figures = difference({q: before[q] for q in queries}, {q: after[q] for q in queries})
            results[f"scifact-test, top {depth}, {group}"] = {"dtype": arguments.dtype, **figures}
    print(json.dumps(results, indent=1), flush=True)
    if arguments.out:
        write(results, arguments.out)


if __name__ == "__main__":
    main()
