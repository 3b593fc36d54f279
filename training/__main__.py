"""Make the built-in reranker: prepare, train in two stages, average, calibrate, export.

python -m training --pairs mix.jsonl --collections collections --base all-MiniLM-L6-v2 \
    --work /tmp/tiny --out bge_rerank_integrations/models/tiny
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from training.calibrate import fit_affine, fold, held_out_logits, reciprocal_rank
from training.export import average, export
from training.lists import SCIENCE
from training.packing import PairEncoder
from training.prepare import Prepared, prepare
from training.train import Settings, train

AVERAGED = (1, 3)

# The steps are those that the shipped weights took, when a clock still ended the stages.
FIRST_STAGE = Settings(steps=1657, checkpoint_every=166)
SECOND_STAGE = Settings(
    mix=SCIENCE,
    steps=390,
    lists_per_step=8,
    negatives=5,
    learning_rate=3e-5,
    seed=15,
    checkpoint_every=39,
)


def main() -> None:
    """Read the arguments and run every step."""
    parser = argparse.ArgumentParser(description="Train the built-in English reranker.")
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines of training pairs")
    parser.add_argument("--collections", type=Path, required=True, help="folder of collections")
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer_file = arguments.base / "tokenizer.json"
    prepared = prepare(arguments.pairs, arguments.collections)
    start = arguments.base
    checkpoints: list[Path] = []
    for name, settings in (("first", FIRST_STAGE), ("second", SECOND_STAGE)):
        checkpoints = train(
            prepared.data,
            prepared.training,
            prepared.mined,
            start,
            tokenizer_file,
            arguments.work / name,
            settings,
        )
        start = checkpoints[-1]
    finish(prepared, checkpoints, tokenizer_file, arguments.out)


def finish(
    prepared: Prepared, checkpoints: Sequence[Path], tokenizer_file: Path, out: Path
) -> None:
    """Take the average that ranks held-out questions best, calibrate it there, and export it."""
    encoder = PairEncoder(Tokenizer.from_file(str(tokenizer_file)))
    best: tuple[float, BertForSequenceClassification, torch.Tensor, torch.Tensor] | None = None
    for count in sorted({min(count, len(checkpoints)) for count in AVERAGED}):
        model = average(checkpoints[-count:])
        scored = held_out_logits(model, encoder, prepared)
        quality = reciprocal_rank(scored)
        print(f"mean of the last {count} checkpoints: held-out MRR {quality:.4f}", flush=True)
        if best is None or quality > best[0]:
            logits, labels = (torch.cat(parts) for parts in zip(*scored, strict=True))
            best = quality, model, logits, labels
    assert best is not None
    _, model, logits, labels = best
    scale, shift = fit_affine(logits, labels)
    print(f"calibration: scale {scale:.3f}, shift {shift:.3f}")
    fold(model, scale, shift)
    export(model, tokenizer_file, out)


if __name__ == "__main__":
    main()
