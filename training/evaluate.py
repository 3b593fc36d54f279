"""Measure a reranker: BM25 before, reranked after, on collections it was not trained on.

python -m training.evaluate --collections collections \
    --model bge_rerank_integrations/models/tiny --out results.json

With `--case NAME` only that one is measured, and its figures replace those in the file.
"""

import argparse
import json
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import AP, RR, nDCG
from tqdm import tqdm

from bge_rerank_integrations import EngineConfig, RerankEngine
from training.negatives import Bm25
from training.python_docs import python_docs
from training.records import Collection, read_json_lines, read_relevance

Score = Callable[[str, Sequence[str]], list[float]]
Relevance = Mapping[str, Mapping[str, int]]

TRECQA, PYTHON_DOCS = "trecqa dev", "Python documentation"
BINS = 10
KEPT_SHARE = 0.95


@dataclass(frozen=True)
class Case:
    """One way to lay out a collection; `sample` limits side cases to so many queries."""

    name: str
    folder: str
    corpus_file: str
    form: Callable[[dict[str, str]], str]
    sample: int | None = None


def text_only(row: dict[str, str]) -> str:
    """The passage without its title."""
    return row["text"]


def titled(row: dict[str, str]) -> str:
    """Title and text, as BEIR joins them."""
    return f"{row.get('title', '')} {row['text']}".strip()


def half_titles(row: dict[str, str]) -> str:
    """The title alone for every second document, by a fixed hash of its id."""
    return row["title"] if zlib.crc32(row["_id"].encode()) % 2 else titled(row)


# The large Wikipedia corpus has the training passages as its distractors; in the small one no
# passage was trained on.
CASES = (
    Case("scifact-test", "scifact-test", "corpus.jsonl", titled),
    Case("qed-nq-dev large", "qed-nq-dev", "corpus_large.jsonl", text_only),
    Case("scifact-test, half titles", "scifact-test", "corpus.jsonl", half_titles, sample=100),
    Case("qed-nq-dev large, titled", "qed-nq-dev", "corpus_large.jsonl", titled, sample=200),
    Case("qed-nq-dev small", "qed-nq-dev", "corpus.jsonl", text_only, sample=200),
)


def mean_of(measure: Any, relevance: Relevance, run: Mapping[str, Mapping[str, float]]) -> float:
    """Mean of one measure over the queries of the run."""
    judged = {query: dict(relevance[query]) for query in run}
    return float(ir_measures.calc_aggregate([measure], judged, run)[measure])


def by_rank(documents: Sequence[str]) -> dict[str, float]:
    """Scores that keep the order given."""
    return {document: -float(rank) for rank, document in enumerate(documents)}


def calibration_error(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Expected calibration error over ten bins of equal width (Guo et al. 2017)."""
    score, label = np.asarray(scores), np.asarray(labels)
    bins = np.minimum((score * BINS).astype(int), BINS - 1)
    gaps = [
        abs(score[bins == b].mean() - label[bins == b].mean()) * (bins == b).mean()
        for b in range(BINS)
        if (bins == b).any()
    ]
    return float(sum(gaps))


def read_case(case: Case, collections: Path) -> Collection:
    """Read a collection in the layout of the case."""
    folder = collections / case.folder
    return Collection(
        {row["_id"]: case.form(row) for row in read_json_lines(folder / case.corpus_file)},
        {row["_id"]: row["text"] for row in read_json_lines(folder / "queries.jsonl")},
        read_relevance(folder / "qrels.tsv"),
    )


def evaluate_corpus(
    score: Score, name: str, collection: Collection, depths: Sequence[int], limit: int | None
) -> dict[str, float]:
    """nDCG@10 before and after reranking each depth, calibration, thresholds, speed."""
    corpus, texts, relevance = collection.corpus, collection.queries, collection.relevance
    queries = sorted(query for query in texts if query in relevance)
    if limit is not None and limit < len(queries):
        queries = random.Random(5).sample(queries, limit)
    names = list(corpus)
    index = Bm25(list(corpus.values()), stemmed=True)
    hits = index.search([texts[q] for q in queries], max(depths))
    found = {q: [names[i] for i in row] for q, row in zip(queries, hits, strict=True)}
    started = time.perf_counter()
    scores = {
        query: dict(
            zip(found[query], score(texts[query], [corpus[d] for d in found[query]]), strict=True)
        )
        for query in tqdm(queries, desc=name, mininterval=10)
    }
    seconds = time.perf_counter() - started
    result = {
        "queries": float(len(queries)),
        "bm25": mean_of(nDCG @ 10, relevance, {q: by_rank(found[q]) for q in queries}),
    }
    for depth in depths:
        run = {q: {d: scores[q][d] for d in found[q][:depth]} for q in queries}
        result[f"reranked top {depth}"] = mean_of(nDCG @ 10, relevance, run)
    pairs = [(value, relevance[q].get(d, 0) > 0) for q in queries for d, value in scores[q].items()]
    relevant = sorted(value for value, label in pairs if label)
    threshold = relevant[int((1 - KEPT_SHARE) * len(relevant))]
    sure = [label for value, label in pairs if value >= 0.5]
    return result | {
        "calibration error": calibration_error(*zip(*pairs, strict=True)),
        "threshold that keeps 95 % of the relevant": threshold,
        "share of candidates at that threshold": sum(v >= threshold for v, _ in pairs) / len(pairs),
        "precision at score 0.5": sum(sure) / max(1, len(sure)),
        "recall at score 0.5": sum(sure) / len(relevant),
        "pairs per second": len(pairs) / seconds,
    }


def evaluate_trecqa(score: Score, path: Path) -> dict[str, float]:
    """MAP and MRR over the lists that have both answers and other sentences."""
    relevance: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for number, row in enumerate(read_json_lines(path)):
        if 0 < sum(row["labels"]) < len(row["labels"]):
            scores = score(row["query"], row["candidates"])
            relevance[str(number)] = {str(i): label for i, label in enumerate(row["labels"])}
            run[str(number)] = {str(i): value for i, value in enumerate(scores)}
    values = [value for scores in run.values() for value in scores.values()]
    labels = [label for judged in relevance.values() for label in judged.values()]
    return {
        "lists": float(len(run)),
        "MAP": mean_of(AP, relevance, run),
        "MRR": mean_of(RR, relevance, run),
        "calibration error": calibration_error(values, labels),
    }


def evaluations(
    score: Score, collections: Path, depths: Sequence[int], limit: int | None
) -> dict[str, Callable[[], dict[str, float]]]:
    """Every case by its name, not yet measured."""

    def measure(case: Case) -> dict[str, float]:
        limits = [n for n in (limit, case.sample) if n is not None]
        collection = read_case(case, collections)
        return evaluate_corpus(score, case.name, collection, depths, min(limits, default=None))

    return {
        TRECQA: lambda: evaluate_trecqa(score, collections / "trecqa-wang" / "dev.jsonl"),
        PYTHON_DOCS: lambda: evaluate_corpus(score, PYTHON_DOCS, python_docs(), depths, limit),
        **{case.name: partial(measure, case) for case in CASES},
    }


def main() -> None:
    """Read the arguments, measure everything, print it and write it."""
    parser = argparse.ArgumentParser(description="Evaluate a reranker on held-out collections.")
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder, hub id or 'tiny'")
    parser.add_argument("--depth", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--queries", type=int, help="a sample of so many queries each")
    names = [TRECQA, PYTHON_DOCS, *(case.name for case in CASES)]
    parser.add_argument("--case", choices=names, help="measure this one only")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    if arguments.case and arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    with RerankEngine(EngineConfig(model=arguments.model, max_length=512)) as engine:
        cases = evaluations(engine.score, arguments.collections, arguments.depth, arguments.queries)
        for name in [arguments.case] if arguments.case else names:
            results[name] = cases[name]()
            print(name, json.dumps(results[name], indent=1), flush=True)
            if arguments.out:
                write(results, arguments.out)


def write(results: Mapping[str, Mapping[str, float]], out: Path) -> None:
    """Write all figures after each case: a full run takes an hour, more on a busy machine."""
    rounded = {
        case: {key: round(value, 4) for key, value in figures.items()}
        for case, figures in results.items()
    }
    out.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
