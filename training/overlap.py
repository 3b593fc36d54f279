"""What training and the evaluation sets have in common, and whether it shows.

The first part counts: questions trained on, and passages of the evaluation corpora among them. The
distractors of the large Wikipedia corpus are passages of the sets that are trained on; a third of
them is reserved. If the model remembered the others as non-answers, its nDCG there would be too
good. So the second part compares the scores of wrong candidates: seen in training against reserved
ones, at the same BM25 ranks.

python -m training.overlap --pairs mix.jsonl --collections collections \
    --model bge_rerank_integrations/models/tiny --out training/results-overlap.json
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import bm25, read_beir, text_only
from training.evaluate import LARGE, Figures, sampled, write
from training.records import (
    SIMILAR,
    UNSEEN,
    Data,
    evaluation_queries,
    from_pairs,
    judged_passages,
    load,
    trained_on,
)
from training.texts import Twins, normalized

DEPTH = 50
QUERIES = 100
BANDS = ((0, 5), (5, 15), (15, DEPTH))


def counts(data: Data, reserved: Data, collections: Path) -> dict[str, Figures]:
    """How many questions there are, and what of the evaluation sets is among them."""
    seen = trained_on(data)
    twins = Twins(evaluation_queries(collections))
    asked = Counter(question.source for question in data.questions)
    shared: Figures = {
        "judged passages trained on": float(len(seen & judged_passages(collections))),
        "reserved passages trained on": float(len(seen & trained_on(reserved))),
        "most similar question": max(twins.closest(question.query) for question in data.questions),
    }
    for name, folder, file in (
        ("scifact-test", "scifact-test", "corpus.jsonl"),
        ("qed-nq-dev small", "qed-nq-dev", "corpus.jsonl"),
        ("qed-nq-dev large", "qed-nq-dev", LARGE),
        ("vaswani", "vaswani", "corpus.jsonl"),
    ):
        documents = read_beir(collections / folder, file, text_only).documents.values()
        trained = sum(normalized(text) in seen for text in documents)
        shared[f"{name}: passages"] = float(len(documents))
        shared[f"{name}: trained on"] = float(trained)
        shared[f"{name}: share trained on"] = trained / len(documents)
    questions: Figures = {source: float(count) for source, count in asked.most_common()}
    totals = {"all": float(len(data.questions)), "reserved": float(len(reserved.questions))}
    return {"training questions": {**totals, **questions}, "evaluation sets": shared}


def uncompared(data: Data, reserved: Data, pairs: Path) -> Figures:
    """Training questions that are like one of a set which the recipe does not compare them with."""
    sets = {"reserved": [question.query for question in reserved.questions]}
    for question in from_pairs(pairs):
        if question.source in UNSEEN:
            sets.setdefault(question.source, []).append(question.query)
    found: Figures = {}
    for name, queries in sets.items():
        twins = Twins(queries)
        likeness = [twins.closest(question.query) for question in data.questions]
        found[f"{name}: training questions like one"] = float(sum(x >= SIMILAR for x in likeness))
        found[f"{name}: most similar"] = max(likeness)
    return found


def wrong_candidates(
    model: str, seen: set[str], reserved: set[str], collections: Path
) -> dict[str, Figures]:
    """Mean logits of wrong candidates in each band of ranks, by whether they were trained on."""
    collection = sampled(read_beir(collections / "qed-nq-dev", LARGE, text_only), QUERIES)
    candidates = bm25(collection, DEPTH).order
    logits: dict[tuple[str, str], list[float]] = {}
    with RerankEngine(model=model, max_length=512, normalize=False) as engine:
        for query, text in collection.queries.items():
            found = candidates[query]
            scored = engine.score(text, [collection.documents[document] for document in found])
            for rank, (document, logit) in enumerate(zip(found, scored, strict=True)):
                words = normalized(collection.documents[document])
                kind = "seen" if words in seen else "reserved" if words in reserved else None
                if kind and document not in collection.relevance[query]:
                    first, last = next(band for band in BANDS if band[0] <= rank < band[1])
                    logits.setdefault((f"ranks {first + 1}-{last}", kind), []).append(logit)
    figures: dict[str, Figures] = {}
    for (band, kind), values in sorted(logits.items()):
        of_band = figures.setdefault(f"wrong candidates, {band}", {})
        of_band[f"{kind}: mean logit"] = sum(values) / len(values)
        of_band[f"{kind}: candidates"] = float(len(values))
    return figures


def main() -> None:
    """Print both parts, and write them."""
    parser = argparse.ArgumentParser(description="What training and evaluation have in common.")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    training, reserved = load(arguments.pairs, arguments.collections)
    results = counts(training, reserved, arguments.collections)
    results["sets that were not compared"] = uncompared(training, reserved, arguments.pairs)
    print(json.dumps(results, indent=1), flush=True)
    results |= wrong_candidates(
        arguments.model, trained_on(training), trained_on(reserved), arguments.collections
    )
    print(json.dumps(results, indent=1))
    if arguments.out:
        write(results, arguments.out)


if __name__ == "__main__":
    main()
