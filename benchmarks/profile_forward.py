"""Where the time of a call goes: products, attention, normalization, tokenization, the rest.

On a CUDA device the shares are of the device's own time; beside them stand the seconds that the
host takes to hand the batches over.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.checkpoints import with_shape, with_weights
from benchmarks.cuda import describe_device, synchronize
from benchmarks.machine import describe_machine
from benchmarks.shapes import SHAPES
from benchmarks.texts import read_pairs
from bge_rerank_integrations import CallOptions, EngineConfig
from bge_rerank_integrations.engine.loading.model import load
from bge_rerank_integrations.engine.scheduling.worker import plan_batches

# start of an operator's name → row of the table; GELU and residual sums are fused into products
# where the operators are there
_ROWS = {
    "mkldnn::_linear_pointwise": "linear layers (with GELU and residual)",
    "aten::addmm": "linear layers (with GELU and residual)",
    "aten::mkldnn_linear": "linear layers (with GELU and residual)",
    "aten::mm": "linear layers (with GELU and residual)",
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
    "aten::add_": "residual sums",
}


def main() -> None:
    """Profile one pass over the pairs and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--collection", type=Path, action="append", default=[])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--shape", choices=SHAPES, help="random weights in this shape; MODEL gives the tokenizer"
    )
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.collection, arguments.pairs)
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.shape:
            folder = with_shape(
                arguments.shape, arguments.model, Path(temporary), device=arguments.device
            )
        else:
            folder = with_weights(arguments.model, Path(temporary))
        model = load(EngineConfig(str(folder), dtype=arguments.dtype, device=arguments.device))
    start = time.process_time()
    windows = model.tokenizer(pairs, model.tokenizer.layout(CallOptions()))
    sequences = [sequence for of_pair in windows for sequence in of_pair]
    tokenization_us = 1e6 * (time.process_time() - start)
    lengths = list(map(len, sequences))

    def score() -> float:
        """Score all, and return the seconds until the last batch was handed over."""
        start = time.perf_counter()
        for batch in plan_batches(lengths, model.max_batch_tokens):
            model.scorers[0].score([sequences[index] for index in batch])
        handed_over_s = time.perf_counter() - start
        synchronize(device)
        return handed_over_s

    score()
    handed_over_s = score()
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as recorded:
        start = time.perf_counter()
        score()
        total_us = 1e6 * (time.perf_counter() - start)
    shares: Counter[str] = Counter({"tokenization (beside the forward pass)": int(tokenization_us)})
    for event in recorded.key_averages():
        name = next((row for key, row in _ROWS.items() if event.key.startswith(key)), None)
        # a kernel of its own name has its time in the operator that launched it
        if is_cuda and not event.key.startswith(("aten::", "torch_attn::")):
            continue
        spent = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        shares[name or "other operators and Python"] += int(spent)
    print(describe_device(device))
    print(describe_machine())
    name = arguments.shape or arguments.model.name
    print(f"{name}, {model.dtype}, {len(pairs)} pairs, {sum(lengths)} tokens, ")
    print(f"{torch.get_num_threads()} threads, {total_us / 1e6:.2f} s under the profiler")
    print(f"{handed_over_s:.4f} s until the last batch was handed over, without it\n")
    total = sum(shares.values())
    for name, spent_us in shares.most_common():
        print(f"| {name} | {spent_us / 1e3:.1f} ms | {100 * spent_us / total:.1f} % |")


if __name__ == "__main__":
    main()
