"""A training step without padding against sentence-transformers' own, on the same batches.

::

    python -m benchmarks.tuning --collection scifact-train --machine "2-core AMD EPYC"

Each side computes losses and gradients of the built-in model in float32, without dropout and with
equal weights; batches go to one and the other in turn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from benchmarks.machine import describe_machine
from benchmarks.texts import Pair, read_pairs
from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint
from bge_rerank_integrations.settings import EngineConfig
from bge_rerank_integrations.tuning.packed import train_packed

PAIRS_PER_STEP = 32


def load() -> CrossEncoder:
    """The built-in model in float32, as it trains, without dropout."""
    folder = open_checkpoint(EngineConfig("tiny")).folder
    kwargs = {"dtype": torch.float32}
    model = CrossEncoder(str(folder), device="cpu", max_length=512, model_kwargs=kwargs)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def step(model: CrossEncoder, pairs: list[Pair]) -> tuple[float, float]:
    """Seconds of CPU time and the loss of a step; every fourth pair counts as relevant."""
    labels = torch.tensor([float(number % 4 == 0) for number in range(len(pairs))])
    started = time.process_time()
    queries, documents = (list(texts) for texts in zip(*pairs, strict=True))
    loss = BinaryCrossEntropyLoss(model)([queries, documents], labels)
    loss.backward()
    model.zero_grad()
    return time.process_time() - started, loss.item()


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, action="append", default=[], help="BEIR folder")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--machine", required=True, help="what else the machine did")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.collection, arguments.batches * PAIRS_PER_STEP)
    starts = range(0, len(pairs), PAIRS_PER_STEP)
    batches = [pairs[start : start + PAIRS_PER_STEP] for start in starts]
    padded, packed = load(), load()
    train_packed(packed[0].auto_model)
    steps = [
        (step(padded, batch), step(packed, batch))
        for _ in range(arguments.rounds)
        for batch in batches
    ]
    figures = {
        "model": "tiny",
        "texts": [folder.name for folder in arguments.collection] or "Python's reference",
        "pairs_a_step": PAIRS_PER_STEP,
        "batches": len(batches),
        "rounds": arguments.rounds,
        "padded_s": median(before for (before, _), _ in steps),
        "packed_s": median(after for _, (after, _) in steps),
        "faster_by": round(median(before / after for (before, _), (after, _) in steps), 2),
        "losses_differ_by": max(abs(before - after) for (_, before), (_, after) in steps),
        "machine": {"name": arguments.machine, **describe_machine()},
    }
    text = json.dumps(figures, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
