"""The engine on a CUDA device: throughput, latency of a short list, share of the roofline, parity.

Needs a CUDA device; no figure of it has been measured yet (see README.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import AutoConfig

from benchmarks.checkpoints import with_weights
from benchmarks.texts import Pair, read_pairs
from bge_rerank_integrations import RerankEngine


def driver_version() -> str:
    """What nvidia-smi says; the first device's."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


def flops(model: Path, lengths: list[int]) -> float:
    """Floating point operations of a packed pass: linear layers and attention, last layer whole."""
    config = AutoConfig.from_pretrained(model)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    linear = 2 * layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    return sum(n * (linear + 4 * layers * hidden * n) for n in lengths)


def seconds_of(engine: RerankEngine, pairs: list[Pair], repeats: int) -> float:
    """Median seconds of a call; token ids are cached after the first."""
    spent = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        engine.score_pairs(pairs)
        spent.append(time.perf_counter() - start)
    return median(spent[1:])


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--collection", type=Path, action="append", default=[])
    parser.add_argument("--pairs", type=int, default=4_000)
    parser.add_argument("--peak-tflops", type=float, required=True, help="of the device, bfloat16")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here")
    pairs = read_pairs(arguments.collection, arguments.pairs)
    query = pairs[0][0]
    short = [(query, passage) for _, passage in pairs[:100]]
    with tempfile.TemporaryDirectory() as temporary:
        model = with_weights(arguments.model, Path(temporary))
        half, exact = (
            RerankEngine(str(model), device="cuda", dtype=dtype, normalize=False)
            for dtype in ("bfloat16", "float32")
        )
        tokenizer = half._running.tokenizer
        windows = tokenizer(pairs, tokenizer.layout(half.options))
        lengths = [len(sequence) for of_pair in windows for sequence in of_pair]
        bulk_s, short_s = seconds_of(half, pairs, 5), seconds_of(half, short, 50)
        difference = np.abs(np.subtract(half.score_pairs(short), exact.score_pairs(short))).max()
        share = flops(model, lengths) / bulk_s / (arguments.peak_tflops * 1e12)
    figures = {
        "device": torch.cuda.get_device_name(),
        "capability": torch.cuda.get_device_capability(),
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "model": arguments.model.name,
        "pairs": len(pairs),
        "tokens_per_pair": round(sum(lengths) / len(lengths)),
        "pairs_per_s": round(len(pairs) / bulk_s),
        "share_of_roofline": round(share, 3),
        "documents_100_ms": round(1e3 * short_s, 2),
        "peak_memory_mib": torch.cuda.max_memory_allocated() >> 20,
        "bfloat16_differs_by": float(difference),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
