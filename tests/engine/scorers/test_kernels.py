"""Triton's kernels without a GPU: their numbers, their machine code, and whole models."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SMALL, SMALL_MODERNBERT, save_random
from fake_cuda import CUDA, fake_cuda
from paths import GOLDEN, ROOT
from transformers import LlamaConfig, ModernBertConfig, Qwen3Config

from bge_rerank_integrations.engine.scorers import linear
from bge_rerank_integrations.engine.scorers.linear import GeluLinear, PlainLinear, make_linear

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton here")
EXACT = 1e-5


def run(*arguments: str) -> Any:
    """What ``tests.triton_kernels`` prints; a process of its own, see there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.triton_kernels", *arguments],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
def test_kernels_equal_torch() -> None:
    differences = run("interpret")
    assert len(differences) > 25
    assert max(differences.values()) <= EXACT, differences


@needs_triton
def test_kernels_compile_without_spills() -> None:
    compiled = run("compile")
    assert {(each["name"], each["arch"]) for each in compiled} == {
        (name, arch)
        for name in ("norm_kernel", "gate_kernel", "rotate_kernel")
        for arch in ("sm_80", "sm_90", "sm_100")
    }
    for each in compiled:
        assert each["spills"] == 0, each
        # four programs of 128 threads share a multiprocessor's 65,536 at the least
        assert each["registers"] <= 128, each


@needs_triton
def test_models_score_the_same_with_them(tmp_path: Path) -> None:
    """All norms, gates and rotations of whole models, in float32 on the CPU."""
    decoder: Any = {**SMALL, "num_key_value_heads": 2, "num_labels": 1}
    decoder |= {f"{name}_token_id": 0 for name in ("pad", "bos", "eos")}
    made = {
        "modernbert": ModernBertConfig(**SMALL_MODERNBERT),
        "modernbert-mean": ModernBertConfig(**SMALL_MODERNBERT, classifier_pooling="mean"),
        "qwen3": Qwen3Config(**decoder, head_dim=16),
        "llama": LlamaConfig(**decoder),
    }
    folders = [save_random(config, tmp_path / name) for name, config in made.items()]
    folders += [str(GOLDEN / name) for name in ("xlmr", "gemma", "minicpm", "light")]
    differences = run("scores", *folders)
    assert len(differences) == len(folders)
    assert max(differences.values()) <= EXACT, differences


@pytest.mark.parametrize("has_triton", [True, False])
def test_layers_of_half_precision_on_cuda(
    has_triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_triton:
        monkeypatch.setattr(linear, "find_spec", lambda _: None)
    with fake_cuda(monkeypatch):
        weight = torch.empty(8, 16, device=CUDA, dtype=torch.bfloat16)
        assert isinstance(make_linear(weight, weight[:, 0]), GeluLinear)
        assert type(make_linear(weight, None)) is PlainLinear
        assert type(make_linear(weight.float(), weight[:, 0].float())) is PlainLinear
        norm = linear.make_norm(weight[0], None, 1e-5)
        is_fused = type(norm) is not linear.Norm
        assert is_fused == (has_triton and find_spec("triton") is not None)
        rows = torch.empty(3, 16, device=CUDA, dtype=torch.bfloat16)
        layer = make_linear(torch.empty(16, 16, device=CUDA, dtype=torch.bfloat16), None)
        assert norm.of_sum(layer, rows, rows).shape == (3, 16)
        assert [each.shape for each in norm.sum_and_norm(layer, rows, rows)] == [(3, 16)] * 2


@needs_triton
def test_a_device_without_a_compiler_runs_without_kernels(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bge_rerank_integrations.engine.scorers import kernels

    available = kernels.is_available
    with fake_cuda(monkeypatch):
        # the fake's answer is the kernels'; there is no device to try them on
        assert not available.__wrapped__(CUDA)
    assert "runs without Triton's kernels" in caplog.text


def test_gelu_by_tanh_is_closer_than_bfloat16_rounds() -> None:
    states = torch.linspace(-8, 8, 100_001)
    exact = torch.nn.functional.gelu(states)
    by_tanh = torch.nn.functional.gelu(states, approximate="tanh")
    # below 1 a bfloat16 has steps of up to 2 ** -8
    assert (exact - by_tanh).abs().max() < 2**-9
