"""Where the time of a call goes: products, attention, normalization, tokenization, the rest."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.checkpoints import with_weights
from benchmarks.machine import describe_machine
from benchmarks.texts import read_pairs
from bge_rerank_integrations import EngineConfig
from bge_rerank_integrations.engine.loading.model import load
from bge_rerank_integrations.engine.scheduling.worker import plan_batches

# start of an operator's name → row of the table; GELU and residual sums are fused into products
# where the operators are there
_ROWS = {
    "mkldnn::_linear_pointwise": "linear layers (with GELU and residual)",
    "aten::addmm": "linear layers (with GELU and residual)",
    "aten::mkldnn_linear": "linear layers (with GELU and residual)",
    "aten::_scaled_dot_product": "attention",
    "aten::_flash_attention": "attention",
    "aten::baddbmm": "attention",
    "aten::bmm": "attention",
    "aten::exp": "attention",
    "aten::sum": "attention",
    "aten::div": "attention",
    "aten::gelu": "GELU",
    "aten::native_layer_norm": "LayerNorm",
    "aten::index_select": "embedding",
    "aten::copy_": "copies",
}


def main() -> None:
    """Profile one pass over the pairs and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--collection", type=Path, action="append", default=[])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.collection, arguments.pairs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = with_weights(arguments.model, Path(temporary))
        model = load(EngineConfig(str(folder), dtype=arguments.dtype, device="cpu"))
    start = time.process_time()
    sequences = [sequence for windows in model.tokenizer(pairs) for sequence in windows]
    tokenization_us = 1e6 * (time.process_time() - start)
    lengths = list(map(len, sequences))

    def score() -> None:
        for batch in plan_batches(lengths, model.max_batch_tokens):
            model.scorers[0].score([sequences[index] for index in batch])

    score()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        start = time.perf_counter()
        score()
        total_us = 1e6 * (time.perf_counter() - start)
    shares: Counter[str] = Counter({"tokenization (beside the forward pass)": int(tokenization_us)})
    for event in recorded.key_averages():
        name = next((row for key, row in _ROWS.items() if event.key.startswith(key)), None)
        shares[name or "other operators and Python"] += int(event.self_cpu_time_total)
    print(describe_machine())
    print(f"{arguments.model.name}, {model.dtype}, {len(pairs)} pairs, {sum(lengths)} tokens, ")
    print(f"{torch.get_num_threads()} threads, {total_us / 1e6:.2f} s under the profiler\n")
    total = sum(shares.values())
    for name, spent_us in shares.most_common():
        print(f"| {name} | {spent_us / 1e3:.1f} ms | {100 * spent_us / total:.1f} % |")


if __name__ == "__main__":
    main()
