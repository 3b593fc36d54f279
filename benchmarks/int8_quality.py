"""Whether 8 bits rank as float32 does: measures, Kendall's tau and probabilities over BM25's lists.

python -m benchmarks.int8_quality tiny --collection scifact/corpus.jsonl --collection dev.jsonl

The aims: a measure differs by at most 0.003, tau is at least 0.96, and at most one probability in a
hundred is further off than 0.05.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt

from benchmarks.agreement import kendall_tau
from benchmarks.cutoffs import read_collection
from benchmarks.machine import describe_machine
from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.measures import means, measure
from bge_rerank_integrations.evaluation.runs import Run, bm25
from bge_rerank_integrations.setting_types import Dtype

# query id → its candidates' logits, in BM25's order
Logits = Mapping[str, npt.NDArray[np.float64]]

MEASURES = ("nDCG@10", "MAP")
LARGEST_LOSS = 0.003
LEAST_TAU = 0.96
FAR_OFF = 0.05
LARGEST_SHARE_FAR_OFF = 0.01


def main() -> None:
    """Score every list in both precisions and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument(
        "--collection",
        action="append",
        required=True,
        type=Path,
        help="the corpus file of a BEIR folder, or a .jsonl file of candidate lists",
    )
    parser.add_argument("--depth", type=int, default=50, help="candidates of BM25 a query")
    parser.add_argument("--queries", type=int, help="a sample of so many a collection")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = {}
    for path in arguments.collection:
        collection = read_collection(path)
        if arguments.queries:
            collection = collection.sample(arguments.queries)
        candidates = bm25(collection, arguments.depth)
        exact, rounded = (
            _logits(arguments.model, dtype, collection, candidates) for dtype in ("float32", "int8")
        )
        rows[f"{path.parent.name}/{path.stem}"] = compared(collection, candidates, exact, rounded)
        print(json.dumps(rows, indent=1))
    figures = {
        "model": Path(arguments.model).name,
        "depth": arguments.depth,
        "aims": {
            "largest change of the measure": LARGEST_LOSS,
            "least kendall_tau": LEAST_TAU,
            f"share of probabilities off by more than {FAR_OFF}": LARGEST_SHARE_FAR_OFF,
        },
        "collections": rows,
        "all aims are met": all(row["aims are met"] for row in rows.values()),
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def compared(
    collection: Collection, candidates: Run, exact: Logits, rounded: Logits
) -> dict[str, object]:
    """The figures of one collection, and whether they are within the aims.

    :param exact: logits in float32.
    :param rounded: the same in 8 bits.
    """
    quality = {}
    for name, logits in (("float32", exact), ("int8", rounded)):
        order = {
            query: [candidates.order[query][i] for i in np.argsort(-each, kind="stable")]
            for query, each in logits.items()
        }
        values = means(measure(collection.relevance, order))
        quality[name] = {each: round(values[each], 4) for each in MEASURES}
    # the mean of a list of one document, or of equal scores only, is not defined
    tau = mean(kendall_tau(exact[q], rounded[q]) for q in exact if np.ptp(exact[q]) > 0)
    differences = np.concatenate([np.abs(exact[q] - rounded[q]) for q in exact])
    far_off = np.concatenate([np.abs(_sigmoid(exact[q]) - _sigmoid(rounded[q])) for q in exact])
    share = float((far_off > FAR_OFF).mean())
    # a list of candidates is ranked whole, and its measure is MAP
    primary = "nDCG@10" if collection.lists is None else "MAP"
    change = quality["int8"][primary] - quality["float32"][primary]
    return {
        "queries": len(exact),
        "pairs": len(differences),
        **quality,
        "measure": primary,
        "change": round(change, 4),
        "kendall_tau": round(tau, 4),
        "share of probabilities off by more than 0.05": round(share, 4),
        "largest difference of logits": round(float(differences.max()), 3),
        "aims are met": abs(round(change, 4)) <= LARGEST_LOSS
        and tau >= LEAST_TAU
        and share <= LARGEST_SHARE_FAR_OFF,
    }


def _logits(model: str, dtype: Dtype, collection: Collection, candidates: Run) -> Logits:
    """Logits of each query's candidates.

    :raises RuntimeError: if the engine computes in another precision.
    """
    with RerankEngine(model, dtype=dtype, device="cpu", normalize=False) as engine:
        if engine.dtype != dtype:
            raise RuntimeError(f"this machine computes {engine.dtype} for {dtype}")
        return {
            query: np.array(
                engine.score(text, [collection.documents[name] for name in candidates.order[query]])
            )
            for query, text in collection.queries.items()
        }


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits))


if __name__ == "__main__":
    main()
