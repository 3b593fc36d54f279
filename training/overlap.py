"""Do passages seen in training score differently from unseen ones of the same kind?

The distractors of the large Wikipedia corpus are training passages, its answers are not. If the
model remembered them as non-answers, its nDCG there would be too good. This compares the scores
that wrong candidates get: Natural Questions paragraphs seen in training against unseen ones, at
the same BM25 ranks.

python -m training.overlap --pairs mix.jsonl --collections collections \
    --model bge_rerank_integrations/models/tiny
"""

import argparse
import random
from pathlib import Path

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import bm25, read_beir, text_only
from bge_rerank_integrations.jsonl import json_objects
from training.records import normalized

DEPTH = 50
QUERIES = 100
BANDS = ((0, 5), (5, 15), (15, DEPTH))


def main() -> None:
    """Print the mean logit of seen and unseen wrong candidates in each band of ranks."""
    parser = argparse.ArgumentParser(description="Compare scores of seen and unseen passages.")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    folder = arguments.collections / "qed-nq-dev"
    seen = {
        normalized(row["positive"])
        for _, row in json_objects(arguments.pairs)
        if row["set"] == "qed-nq-train"
    }
    unseen = read_beir(folder).documents.keys()
    collection = read_beir(folder, "corpus_large.jsonl", text_only)
    collection = collection.only(random.Random(9).sample(list(collection.queries), QUERIES))
    candidates = bm25(collection, DEPTH).order
    logits: dict[tuple[bool, tuple[int, int]], list[float]] = {}
    with RerankEngine(model=arguments.model, max_length=512, normalize=False) as engine:
        for query, text in collection.queries.items():
            found = candidates[query]
            scored = engine.score(text, [collection.documents[document] for document in found])
            for rank, (document, logit) in enumerate(zip(found, scored, strict=True)):
                is_seen = normalized(collection.documents[document]) in seen
                judged_relevant = document in collection.relevance[query]
                if not judged_relevant and (is_seen or document in unseen):
                    band = next(band for band in BANDS if band[0] <= rank < band[1])
                    logits.setdefault((is_seen, band), []).append(logit)
    for (is_seen, band), values in sorted(logits.items()):
        kind = "seen" if is_seen else "unseen"
        mean = sum(values) / len(values)
        print(f"ranks {band[0] + 1}-{band[1]} {kind}: mean logit {mean:.2f}, n = {len(values)}")


if __name__ == "__main__":
    main()
