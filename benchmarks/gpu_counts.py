"""What a GPU would do for one pass, counted without a GPU: launches, bytes, operations, time.

The real scorers run on fake CUDA tensors, which have shapes and hold nothing. Every operator that
reaches the device is counted with the bytes it reads and writes. A roofline of a named device turns
the counts into time: an operator takes as long as its operations or its bytes, whichever is longer.
`--json` prints one object in the last line. `docs/gpu.md` says what a first run must meet.

python -m benchmarks.gpu_counts --shape bge-reranker-base
python -m benchmarks.gpu_counts --shape bge-reranker-base --tokens 1280 --length 128 --json
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import compress
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModel, ModernBertConfig, PreTrainedConfig, XLMRobertaConfig

from benchmarks.shapes import SHAPES
from bge_rerank_integrations.engine.loading.encoders import body_name, make_body, make_head
from bge_rerank_integrations.engine.scorers import flash_attention
from bge_rerank_integrations.engine.scorers.attention import Packing
from bge_rerank_integrations.engine.scorers.decoder import PACKED_ATTENTION, DecoderScorer
from bge_rerank_integrations.engine.scorers.heads import EncoderScorer
from bge_rerank_integrations.engine.scorers.weights import Weights
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence
from tests.fake_cuda import CUDA, fake_cuda, to_fake_cuda

# an attention kernel computes whole tiles
_TILE = 128
# a result of these is a view, or memory that nothing is written to
_NO_LAUNCH = ("empty", "detach", "lift_fresh", "alias", "pin_memory", "_unsafe_view", "set_")
_VARLEN = "torch_attn::_varlen_attn"
# these read only the rows of a table that they return
_GATHERS = ("aten::embedding", "aten::index", "aten::index_select")


@dataclass(frozen=True)
class Rates:
    """What a device does in a second, as expected of large passes.

    :param product_tflops: of half-precision products.
    :param attention_tflops: of the flash kernel, counted in whole tiles.
    :param tb_per_s: read and written by everything else.
    :param launch_us: of the host's time, with the Python around it.
    """

    product_tflops: float
    attention_tflops: float
    tb_per_s: float
    launch_us: float = 12.5


# Others measured 790 TFLOP/s of the H200's and H100's 989 in large products under their power
# limit; 80 % of it, and 70 % of the memory's rate, are what products and copies of this size reach.
DEVICES = {
    "H200": Rates(0.8 * 790, 250, 0.7 * 4.8),
    "H100": Rates(0.8 * 790, 250, 0.7 * 3.35),
    "A100": Rates(0.8 * 270, 130, 0.75 * 2.0),
}


@dataclass
class Operator:
    """One kind of operator in one pass.

    :param launches: kernels and copies that it starts.
    :param bytes: that these read and write.
    :param flop: of products and attention, the latter in whole tiles.
    :param device_s: by the roofline, summed over its calls.
    """

    launches: int = 0
    bytes: int = 0
    flop: float = 0.0
    device_s: float = 0.0


@dataclass
class Counts:
    """One pass.

    :param tokens: that it reads.
    :param layers: of the model.
    :param operators: by name.
    """

    sequences: int
    tokens: int
    layers: int
    rates: Rates
    operators: dict[str, Operator] = field(default_factory=dict)

    @property
    def launches(self) -> int:
        """Kernels and copies in all."""
        return sum(each.launches for each in self.operators.values())

    @property
    def kb_per_token_and_layer(self) -> float:
        """Thousands of bytes that are read or written, over tokens and layers."""
        total = sum(each.bytes for each in self.operators.values())
        return total / 1e3 / self.tokens / self.layers

    @property
    def tflop(self) -> float:
        """Operations of products and attention, in 10^12."""
        return sum(each.flop for each in self.operators.values()) / 1e12

    @property
    def device_ms(self) -> float:
        """The roofline's time."""
        return 1e3 * sum(each.device_s for each in self.operators.values())

    @property
    def host_ms(self) -> float:
        """The host's time to launch all of it; the device works meanwhile."""
        return self.launches * self.rates.launch_us / 1e3

    @property
    def pairs_per_s(self) -> float:
        """In bulk, where the slower of host and device decides."""
        return self.sequences / max(self.device_ms, self.host_ms) * 1e3

    def add(self, name: str, launches: int, n_bytes: int, flop: float, tflops: float) -> None:
        """Count one call of an operator.

        :param tflops: at which ``flop`` are computed.
        """
        operator = self.operators.setdefault(name, Operator())
        operator.launches += launches
        operator.bytes += n_bytes
        operator.flop += flop
        operator.device_s += max(flop / tflops / 1e12, n_bytes / self.rates.tb_per_s / 1e12)


class _Counter(TorchDispatchMode):
    """Counts what operators do on the device."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts
        # of the next call of the attention kernel
        self.attended: tuple[Packing, Packing, tuple[int, int]] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        given = _on_device([*args, kwargs])
        made = _on_device(result)
        is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        plain = name.removeprefix("aten::")
        if not made or is_view or plain.startswith(_NO_LAUNCH):
            return result
        if name in _GATHERS:
            # the table is the first, the numbers of rows come behind it
            given = [*made, *given[1:]]
        n_bytes = sum(tensor.numel() * tensor.itemsize for tensor in [*given, *made])
        if name == _VARLEN:
            # and one that clears its random state
            flop = self._attention_flop(given[0])
            self._counts.add("attention", 2, n_bytes, flop, self._counts.rates.attention_tflops)
        elif plain in ("addmm", "mm", "_addmm_activation", "bmm", "mv"):
            left, right = given[-2:] if plain != "_addmm_activation" else given[1:3]
            flop = 2.0 * left.numel() * (right.shape[-1] if right.dim() > 1 else 1)
            is_half = left.itemsize == 2
            tflops = self._counts.rates.product_tflops * (1 if is_half else 0.05)
            self._counts.add(f"product ({plain})", 1, n_bytes, flop, tflops)
        else:
            self._counts.add(plain, 1, n_bytes, 0.0, 1.0)
        return result

    def _attention_flop(self, query: torch.Tensor) -> float:
        assert self.attended is not None
        queries, keys, (before, behind) = self.attended
        tiles = 0.0
        for n, seen in zip(queries.lengths, keys.lengths, strict=True):
            rows, columns = math.ceil(n / _TILE), math.ceil(seen / _TILE)
            if (before, behind) == (-1, 0):
                tiles += rows * (columns + 1) / 2
            elif before >= 0:
                tiles += rows * min(columns, 1 + math.ceil((before + behind) / _TILE))
            else:
                tiles += rows * columns
        return 4.0 * query.shape[1] * query.shape[2] * tiles * _TILE**2

    def launch(self, kernel: Any, _: object, *given: Any, **constants: Any) -> None:
        """Count one of the package's own kernels, which no operator stands for."""
        name = kernel.fn.__name__
        tensors = [each.numel() * each.itemsize for each in given if torch.is_tensor(each)]
        if name == "norm_kernel":
            rows, residual, weight, bias, total, normed = tensors
            is_read = (True, constants["HAS_RESIDUAL"], True, constants["HAS_BIAS"])
            read = sum(compress((rows, residual, weight, bias), is_read))
            n_bytes = read + normed + total * constants["KEEPS_SUM"]
        elif name == "rotate_kernel":
            # read and written
            n_bytes = tensors[0] + sum(tensors)
        else:
            n_bytes = sum(tensors)
        self._counts.add(name, 1, n_bytes, 0.0, 1.0)


def _on_device(values: object) -> list[torch.Tensor]:
    """The tensors of a call's arguments or results that are on the device."""
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor) and each.is_cuda]


class _OnlyShapes:
    """A checkpoint whose tensors hold nothing."""

    def __contains__(self, name: str) -> bool:
        return True

    def read(self, _: str, shape: Sequence[int | None]) -> torch.Tensor:
        return torch.empty([1 if size is None else size for size in shape])


def make_scorer(config: PreTrainedConfig, dtype: torch.dtype) -> Any:
    """The scorer of a shape, on fake CUDA tensors; within :func:`fake_cuda`.

    :param dtype: of its body.
    """
    if isinstance(config, (XLMRobertaConfig, ModernBertConfig)):
        given = config.to_dict()
        files: Any = _OnlyShapes()
        weights = Weights(files, CUDA, dtype)
        head = make_head(given, weights)
        body = make_body(
            given, weights.module(body_name(given)), passage_type=0, pooling=head.pooling
        )
        return EncoderScorer(body, head)
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation=PACKED_ATTENTION).eval()
    to_fake_cuda(model, dtype)
    row = torch.empty(config.hidden_size, device=CUDA)
    return DecoderScorer(model, {config.num_hidden_layers: row})


def lengths_of(tokens: int, length: int) -> list[int]:
    """Lengths around an average that vary by half of it, and have so many tokens at most."""
    drawn = np.random.default_rng(0).integers(length // 2, length * 3 // 2, tokens // length * 2)
    return sorted(map(int, drawn[np.cumsum(drawn) <= tokens]), reverse=True)


@contextmanager
def _seen_attention(counter: _Counter) -> Iterator[None]:
    """Tell the counter which lengths the attention kernel is given."""
    attend = flash_attention.flash_attention

    def told(query: Any, key: Any, value: Any, queries: Any, keys: Any, **given: Any) -> Any:
        counter.attended = queries, keys, given["window"]
        return attend(query, key, value, queries, keys, **given)

    with mock.patch.object(flash_attention, "flash_attention", told):
        yield


def count(
    config: PreTrainedConfig,
    lengths: Sequence[int],
    *,
    device: str = "H200",
    dtype: torch.dtype = torch.bfloat16,
) -> Counts:
    """Count one pass.

    :param config: one of ``SHAPES``.
    :param lengths: tokens of each sequence.
    :param device: one of ``DEVICES``.
    """
    counts = Counts(len(lengths), sum(lengths), config.num_hidden_layers, DEVICES[device])
    counter = _Counter(counts)
    batch = [TokenSequence(np.arange(n, dtype=np.int32) + 5, 4, n - 1) for n in lengths]
    with pytest.MonkeyPatch.context() as patch, fake_cuda(patch), torch.no_grad():
        scorer = make_scorer(config, dtype)
        if find_spec("triton"):
            from bge_rerank_integrations.engine.scorers import kernels

            patch.setattr(kernels, "launch", counter.launch)
        with _seen_attention(counter), counter:
            # without inference mode, in which tensors that are not there cannot be sliced
            type(scorer).score.__wrapped__(scorer, batch)
    # the logits' copy to the host, for which a test's fake has nothing
    counts.add("download", 1, 8 * len(lengths), 0.0, 1.0)
    return counts


def table(name: str, counts: Counts) -> str:
    """A shape's counts in Markdown."""
    lines = [
        f"{name}: {counts.sequences} pairs, {counts.tokens} tokens: {counts.launches} launches, "
        f"{counts.kb_per_token_and_layer:.1f} KB a token and layer, {counts.tflop:.2f} TFLOP; "
        f"{counts.device_ms:.2f} ms, host {counts.host_ms:.2f} ms: "
        f"{counts.pairs_per_s:,.0f} pairs/s",
        "",
        "| operator | launches | MB | TFLOP | ms | share |",
        "|---|---|---|---|---|---|",
    ]
    rows = sorted(counts.operators.items(), key=lambda row: -row[1].device_s)
    for operator, each in rows:
        ms = 1e3 * each.device_s
        lines.append(
            f"| {operator} | {each.launches} | {each.bytes / 1e6:.1f} | {each.flop / 1e12:.3f} "
            f"| {ms:.3f} | {ms / counts.device_ms:.1%} |"
        )
    return "\n".join(lines) + "\n"


def figures(name: str, counts: Counts) -> dict[str, Any]:
    """A shape's counts for a machine."""
    return {
        "shape": name,
        "pairs": counts.sequences,
        "tokens": counts.tokens,
        "launches": counts.launches,
        "kb_per_token_and_layer": round(counts.kb_per_token_and_layer, 2),
        "tflop": round(counts.tflop, 3),
        "device_ms": round(counts.device_ms, 3),
        "host_ms": round(counts.host_ms, 3),
        "pairs_per_s": round(counts.pairs_per_s),
        "shares": {
            operator: round(1e3 * each.device_s / counts.device_ms, 4)
            for operator, each in counts.operators.items()
        },
    }


def kernel_figures() -> dict[str, Any]:
    """Registers and spills of the package's kernels, and how far they are from torch's numbers.

    Compiled for devices that are not here, and interpreted on the CPU in float32.
    """
    if find_spec("triton") is None:
        return {"kernels": [], "interpreter_difference": None}

    def run(mode: str) -> Any:
        # a process of its own: see there
        done = subprocess.run(
            [sys.executable, "-m", "tests.triton_kernels", mode],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    return {"kernels": run("compile"), "interpreter_difference": max(run("interpret").values())}


def main(given: list[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all")
    parser.add_argument("--tokens", type=int, default=16_384, help="of the pass, at most")
    parser.add_argument("--length", type=int, default=150, help="of a pair, on average")
    parser.add_argument("--device", choices=DEVICES, default="H200")
    parser.add_argument("--json", action="store_true", help="one object in the last line")
    arguments = parser.parse_args(given)
    lengths = lengths_of(arguments.tokens, arguments.length)
    rows = []
    for name in arguments.shape or SHAPES:
        counts = count(SHAPES[name], lengths, device=arguments.device)
        print(table(name, counts))
        rows.append(figures(name, counts))
    if arguments.json:
        print(json.dumps({**rows[0], **kernel_figures(), "shapes": rows}))


if __name__ == "__main__":
    main()
