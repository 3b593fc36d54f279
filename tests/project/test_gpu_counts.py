"""What a pass costs a GPU stays below its ceilings; counted on tensors that hold nothing."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from bge_rerank_integrations.engine.scorers import flash_attention

gpu_counts = pytest.importorskip("benchmarks.gpu_counts", reason="they are not in the sdist")

pytestmark = pytest.mark.skipif(
    not flash_attention.IS_COMPLETE, reason="an older torch: no kernel for packed sequences"
)

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton here")

# launches of a pass, and thousands of bytes a token and layer
CEILINGS = {
    "bge-reranker-base": (112, 40),
    "bge-reranker-large": (208, 54.2),
    "bge-reranker-v2-m3": (208, 54.2),
    "bge-reranker-v2-gemma": (474, 415),
    "bge-reranker-v2-minicpm-layerwise": (1_102, 327),
    "bge-reranker-v2.5-gemma2-lightweight": (1_158, 581),
    "Qwen3-Reranker-0.6B": (778, 187),
    "gte-reranker-modernbert-base": (277, 57.5),
    "ettin-reranker-32m": (147, 26.5),
}


@needs_triton
@pytest.mark.parametrize("shape", CEILINGS)
def test_a_pass_stays_below_its_ceilings(shape: str) -> None:
    counts = gpu_counts.count(gpu_counts.SHAPES[shape], gpu_counts.lengths_of(16_384, 150))
    launches, kb = CEILINGS[shape]
    assert counts.tokens > 16_000
    assert counts.launches <= launches
    assert counts.kb_per_token_and_layer <= kb


def test_products_have_the_operations_of_their_shapes() -> None:
    """A layer of hidden size H has 24 H² of them a token; the last one fewer."""
    lengths = [128] * 100
    counts = gpu_counts.count(gpu_counts.SHAPES["bge-reranker-base"], lengths)
    products = sum(each.flop for name, each in counts.operators.items() if "product" in name)
    full = 12_800 * 24 * 768**2
    assert 11 * full < products < 12 * full
    # one tile a sequence, head and layer
    assert counts.operators["attention"].flop == 100 * 12 * 4 * 768 * 128**2


@needs_triton
def test_the_last_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    gpu_counts.main(["--shape", "ettin-reranker-32m", "--tokens", "2000", "--json"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["shape"] == "ettin-reranker-32m"
    assert last["launches"] > 100
    assert last["kb_per_token_and_layer"] > 10
    assert last["device_ms"] > 0
    assert {each["name"] for each in last["kernels"]} >= {"norm_kernel", "gate_kernel"}
    assert not any(each["spills"] for each in last["kernels"])
    assert 0 < last["interpreter_difference"] <= 1e-5
    assert sum(last["shares"].values()) == pytest.approx(1, abs=0.01)
