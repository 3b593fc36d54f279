"""Measure a reranker: BM25 before, reranked after, on collections it was not trained on.

python -m training.evaluate --pairs mix.jsonl --collections collections \
    --model bge_rerank_integrations/models/tiny --out results.json

With `--case NAME …` only these are measured, and their figures replace those in the file.
"""

import argparse
import json
import random
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import (
    Collection,
    CorpusPassage,
    Run,
    bm25,
    compare,
    means,
    measure,
    read_beir,
    read_candidate_lists,
    rerank,
    text_only,
    titled,
)
from bge_rerank_integrations.evaluation.calibrating import expected_calibration_error
from bge_rerank_integrations.evaluation.measures import PRIMARY
from bge_rerank_integrations.evaluation.runs import at_depth
from bge_rerank_integrations.ranking import Reranker
from training.python_docs import python_docs
from training.records import (
    UNSEEN,
    Data,
    Passage,
    as_collection,
    from_pairs,
    load,
    trained_on,
    with_pools,
)
from training.requests import KEYWORDS, SUBJECTS, TOPIC, made_up
from training.texts import normalized

TRECQA = "trecqa dev"
DTYPES = ("float32", "bfloat16")
KEPT_SHARE = 0.95


Figures = dict[str, float | str]


@dataclass(frozen=True)
class Case:
    """One way to lay out a collection; `sample` limits cases to so many queries.

    :param is_unseen: documents that were trained on are left out.
    """

    name: str
    folder: str
    corpus_file: str = "corpus.jsonl"
    form: Callable[[CorpusPassage], str] = titled
    sample: int | None = None
    is_unseen: bool = False


def half_titles(passage: CorpusPassage) -> str:
    """The title alone for every second document, by a fixed hash of its id."""
    return passage.title if zlib.crc32(passage.id.encode()) % 2 else titled(passage)


LARGE = "corpus_large.jsonl"
CASES = (
    Case("scifact-test", "scifact-test"),
    Case("scifact-test, half titles", "scifact-test", form=half_titles, sample=100),
    Case("qed-nq-dev small", "qed-nq-dev", form=text_only, sample=200),
    Case("qed-nq-dev large", "qed-nq-dev", LARGE, text_only, sample=200),
    Case("qed-nq-dev large, unseen", "qed-nq-dev", LARGE, text_only, sample=200, is_unseen=True),
    Case("vaswani", "vaswani", form=text_only),
)

# Requests of each kind, and questions of each set that is not trained on.
REQUESTS, REQUEST_SEED = 50, 3
UNSEEN_QUESTIONS = 100


def unseen(collection: Collection, trained: Container[str]) -> Collection:
    """The collection without the documents that were trained on."""
    kept = {
        name: text for name, text in collection.documents.items() if normalized(text) not in trained
    }
    return replace(collection, documents=kept)


def requests(reserved: Data) -> list[Collection]:
    """Topics and keywords, made of the reserved passages about one subject.

    In one corpus all passages are whole, in the other every second is only its title.
    """

    def whole(passage: Passage) -> str:
        return f"{passage.title or passage.heading} {passage.text}".strip()

    def mixed(passage: Passage) -> str:
        title = passage.title or passage.heading
        is_short = title and zlib.crc32(passage.text.encode()) % 2
        return title if is_short else whole(passage)

    corpus = with_pools([one for one in reserved.questions if one.source in SUBJECTS])
    made = made_up(corpus, REQUEST_SEED)
    collections = []
    for kind in (TOPIC, KEYWORDS):
        asked = [one for one in made if one.source == kind][:REQUESTS]
        for name, form in ((kind, whole), (f"{kind}, mixed lengths", mixed)):
            collections.append(as_collection(name, Data(asked, corpus.pools), form))
    return collections


def unseen_sets(pairs: Path) -> list[Collection]:
    """The sets of pairs of which nothing is trained on."""
    questions = list(from_pairs(pairs))
    return [
        as_collection(name, with_pools([one for one in questions if one.source == name]))
        for name in sorted(UNSEEN)
    ]


def score_figures(collection: Collection, run: Run) -> Figures:
    """Calibration, and what thresholds keep and let through, over all pairs of a reranker's run."""
    pairs = [
        (score, collection.relevance[query].get(document, 0) > 0)
        for query, documents in run.order.items()
        for document, score in zip(documents, run.scores[query], strict=True)
    ]
    relevant = sorted(score for score, label in pairs if label)
    threshold = relevant[int((1 - KEPT_SHARE) * len(relevant))]
    sure = [label for score, label in pairs if score >= 0.5]
    return {
        "calibration error": expected_calibration_error(*zip(*pairs, strict=True)),
        "threshold that keeps 95 % of the relevant": threshold,
        "share of candidates at that threshold": sum(s >= threshold for s, _ in pairs) / len(pairs),
        "precision at score 0.5": sum(sure) / max(1, len(sure)),
        "recall at score 0.5": sum(sure) / len(relevant),
    }


def evaluate_corpus(reranker: Reranker, collection: Collection, depths: Sequence[int]) -> Figures:
    """nDCG@10 before and after reranking each depth, who wins, calibration, thresholds, speed."""
    first_stage = bm25(collection, max(depths))
    run = rerank(reranker.model, reranker, collection, first_stage, show_progress=True)
    before = measure(collection.relevance, first_stage.order)[PRIMARY]
    figures: Figures = {
        "queries": float(len(before)),
        "bm25": float(np.mean(list(before.values()))),
    }
    for depth in depths:
        after = measure(collection.relevance, at_depth(run, first_stage, depth).order)[PRIMARY]
        figures[f"reranked top {depth}"] = float(np.mean(list(after.values())))
        compared = compare("bm25", before, "reranked", after)
        figures[f"wins top {depth}"] = float(compared.wins)
        figures[f"losses top {depth}"] = float(compared.losses)
        figures[f"p top {depth}"] = compared.p_value
    return {
        **figures,
        **score_figures(collection, run),
        "pairs per second": run.pairs / sum(run.seconds.values()),
    }


def evaluate_lists(reranker: Reranker, collection: Collection) -> Figures:
    """MAP, MRR@10, calibration and thresholds over lists that come with their queries."""
    run = rerank(reranker.model, reranker, collection, bm25(collection))
    quality = means(measure(collection.relevance, run.order))
    return {
        "lists": float(len(collection.queries)),
        "MAP": quality["MAP"],
        "MRR@10": quality["MRR@10"],
        **score_figures(collection, run),
    }


def sampled(collection: Collection, limit: int | None) -> Collection:
    """At most `limit` queries, those of the committed figures: `Collection.sample` has others."""
    queries = sorted(collection.queries)
    if limit is None or limit >= len(queries):
        return collection
    return collection.only(set(random.Random(5).sample(queries, limit)))


def evaluations(
    reranker: Reranker, pairs: Path, collections: Path, depths: Sequence[int], limit: int | None
) -> dict[str, Callable[[], Figures]]:
    """Every case by its name, not yet measured."""
    training, reserved = load(pairs, collections)
    trained = trained_on(training)

    def evaluate_case(case: Case) -> Figures:
        collection = read_beir(collections / case.folder, case.corpus_file, case.form)
        if case.is_unseen:
            collection = unseen(collection, trained)
        return evaluate(collection, case.sample)

    def evaluate(collection: Collection, sample: int | None = None) -> Figures:
        limits = [n for n in (limit, sample) if n is not None]
        return evaluate_corpus(reranker, sampled(collection, min(limits, default=None)), depths)

    trecqa = collections / "trecqa-wang" / "dev.jsonl"
    others = [python_docs(), *requests(reserved), *unseen_sets(pairs)]
    return {
        TRECQA: lambda: evaluate_lists(reranker, read_candidate_lists(trecqa)),
        **{one.name: partial(evaluate, one, UNSEEN_QUESTIONS) for one in others},
        **{case.name: partial(evaluate_case, case) for case in CASES},
    }


def main() -> None:
    """Read the arguments, measure everything, print it and write it."""
    parser = argparse.ArgumentParser(description="Evaluate a reranker on held-out collections.")
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines of training pairs")
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder, hub id or 'tiny'")
    parser.add_argument("--depth", type=int, nargs="+", default=[50])
    parser.add_argument("--queries", type=int, help="a sample of so many queries each")
    parser.add_argument("--case", nargs="+", help="measure these only")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    results: dict[str, Figures] = {}
    if arguments.case and arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    with RerankEngine(arguments.model, max_length=512, dtype=arguments.dtype) as engine:
        cases = evaluations(
            engine, arguments.pairs, arguments.collections, arguments.depth, arguments.queries
        )
        for name in arguments.case or cases:
            print(name, flush=True)
            results[name] = {"dtype": arguments.dtype, **cases[name]()}
            print(json.dumps(results[name], indent=1), flush=True)
            if arguments.out:
                write(results, arguments.out)


def write(results: Mapping[str, Figures], out: Path) -> None:
    """Write all figures after each case: a full run takes an hour, more on a busy machine."""
    rounded = {
        case: {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
        for case, figures in results.items()
    }
    out.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
