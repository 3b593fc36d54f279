"""Whether half precision ranks as float32 does: Kendall's tau over real candidate lists.

python -m benchmarks.agreement tiny --collection collections/scifact-test --depth 20
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe_machine
from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import bm25, read_beir
from bge_rerank_integrations.setting_types import Dtype

Scores = npt.NDArray[np.float64]


def main() -> None:
    """Score every list in both precisions and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--depth", type=int, default=20, help="candidates of BM25 a query")
    parser.add_argument("--queries", type=int, help="a sample of so many")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    collection = read_beir(arguments.collection)
    if arguments.queries:
        collection = collection.sample(arguments.queries)
    candidates = bm25(collection, arguments.depth).order
    lists = [
        (text, [collection.documents[document] for document in candidates[query]])
        for query, text in collection.queries.items()
    ]
    half, precision = _scores(arguments.model, arguments.dtype, lists)
    exact, _ = _scores(arguments.model, "float32", lists)
    figures = {
        "model": Path(arguments.model).name,
        "precision": precision,
        "collection": collection.name,
        "queries": len(lists),
        "candidates": arguments.depth,
        "kendall_tau": mean(kendall_tau(a, b) for a, b in zip(half, exact, strict=True)),
        "largest_difference": max(
            float(np.abs(a - b).max()) for a, b in zip(half, exact, strict=True)
        ),
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def kendall_tau(a: Scores, b: Scores) -> float:
    """Tau-b: pairs in the same order minus pairs in the other, over all; ties count in neither."""
    above = np.triu_indices(len(a), 1)
    x, y = (np.sign(scores[:, None] - scores)[above] for scores in (a, b))
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def _scores(
    model: str, dtype: Dtype, lists: list[tuple[str, list[str]]]
) -> tuple[list[Scores], str]:
    """Logits of each list, and the precision that was computed in."""
    with RerankEngine(model, dtype=dtype, normalize=False) as engine:
        logits = [np.array(engine.score(query, documents)) for query, documents in lists]
        return logits, engine.dtype


if __name__ == "__main__":
    main()
