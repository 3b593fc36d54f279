"""Encoders in 8 bits on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import edit_json
from paths import GOLDEN, JUDGED_QUESTIONS, ROOT
from processes import run
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu

from benchmarks.agreement import kendall_tau
from bge_rerank_integrations import (
    ConfigurationError,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.engine.loading import devices, encoders
from bge_rerank_integrations.engine.scorers import bert
from bge_rerank_integrations.engine.scorers.attention import packed_attention
from bge_rerank_integrations.engine.scorers.int8 import Int8Layers, Int8Linear, weight_levels

QUESTIONS = JUDGED_QUESTIONS
SETTINGS: Any = {"dtype": "int8", "device": "cpu", "normalize": False}
LEVELS = weight_levels() or 0

needs_int8 = pytest.mark.skipif(not LEVELS, reason="no exact 8-bit product here")


def layer_of(weight: torch.Tensor, bias: torch.Tensor | None) -> Int8Linear:
    return Int8Linear(weight, bias, torch.ones(weight.shape[1]), LEVELS)


def assert_near(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Off by at most what two roundings to 8 bits do, on average."""
    error = (result - expected).norm() / expected.norm()
    assert error < (0.02 if LEVELS == 127 else 0.04)


@needs_int8
@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize("has_bias", [True, False])
def test_layers_are_near_the_formula(tokens: int, has_bias: bool) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 96), torch.randn(48)
    layer = layer_of(weight, bias if has_bias else None)
    rows, other = torch.randn(tokens, 96), torch.randn(tokens, 48)
    product = rows @ weight.T + bias * has_bias
    assert_near(layer(rows), product)
    assert_near(layer.gelu(rows), gelu(product))
    assert_near(layer.add(rows, other), product + other)
    assert_near(layer.multiply(rows, other), product * other)


@needs_int8
def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    layer = layer_of(torch.randn(48, 96), torch.randn(48))
    rows = torch.randn(64, 96)
    alone = layer(rows)
    rows[0] *= 1_000
    torch.testing.assert_close(layer(rows)[1:], alone[1:], rtol=0, atol=0)


@needs_int8
@pytest.mark.parametrize("value", [0.0, 3.25, -1e4])
def test_a_row_of_one_value_keeps_it(value: float) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 96), torch.randn(48)
    rows = torch.full((4, 96), value)
    expected = rows @ weight.T + bias
    if value == 0:
        torch.testing.assert_close(layer_of(weight, bias)(rows), expected, rtol=0, atol=0)
    else:
        assert_near(layer_of(weight, bias)(rows), expected)


@needs_int8
def test_an_output_without_weights_is_its_bias() -> None:
    layer = layer_of(torch.zeros(48, 96), torch.ones(48))
    assert torch.equal(layer(torch.randn(5, 96)), torch.ones(5, 48))


@needs_int8
def test_the_largest_values_do_not_saturate() -> None:
    weight = torch.ones(64, 512)
    weight[1::2] = -1
    rows = torch.rand(64, 512).round() * 5
    torch.testing.assert_close(layer_of(weight, None)(rows), rows @ weight.T)


@needs_int8
def test_a_row_with_nan_has_no_result() -> None:
    rows = torch.randn(3, 96)
    rows[1] = torch.nan
    residual = rows[:, :48].clone()
    result = layer_of(torch.randn(48, 96), None).add(rows, residual)
    assert result[1].isnan().all()
    assert result[[0, 2]].isfinite().all()


@needs_int8
def test_columns_with_large_values_are_smoothed() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(48, 96), torch.randn(200, 96)
    rows[:, 5] *= 100
    weight[:, 5] /= 100
    layers = Int8Layers()
    layer = layers.make(weight, None)
    expected = layer(rows)
    torch.testing.assert_close(expected, rows @ weight.T)
    layers.quantize()
    smoothed, rough = layer(rows), layer_of(weight, None)(rows)
    assert (smoothed - expected).norm() < 0.2 * (rough - expected).norm()


@needs_int8
def test_a_column_that_the_sample_texts_leave_silent_may_speak_later() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(48, 96), torch.randn(200, 96)
    silent = rows.clone()
    silent[:, 5] = 0
    layers = Int8Layers()
    layer = layers.make(weight, None)
    layer(silent)
    layers.quantize()
    expected = rows @ weight.T
    assert (layer(rows) - expected).norm() < 0.05 * expected.norm()


@pytest.mark.skipif(sys.platform != "linux", reason="how oneDNN is told on Linux")
@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="a CPU of another kind")
@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_weights_have_seven_bits_where_sums_of_products_saturate(instructions: str) -> None:
    program = """
import torch
from bge_rerank_integrations.engine.scorers.int8 import Int8Linear, weight_levels

print(weight_levels())
torch.manual_seed(0)
weight, rows = torch.randn(48, 96), torch.randn(300, 96)
largest = torch.ones(64, 512)
largest[1::2] = -1
for weight, rows in (weight, rows), (largest, torch.rand(64, 512).round() * 5):
    layer = Int8Linear(weight, None, torch.ones(weight.shape[1]), weight_levels())
    expected = rows @ weight.T
    print(float((layer(rows) - expected).norm() / expected.norm()))
"""
    older = {"ONEDNN_MAX_CPU_ISA": instructions, "ATEN_CPU_CAPABILITY": "avx2"}
    done = run(program, environment=os.environ | older | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    levels, error, error_of_largest = map(float, done.stdout.split())
    assert levels == 64
    assert 0 < error < 0.04
    # as a sum that saturates would be far off
    assert error_of_largest < 1e-6


@needs_int8
@pytest.mark.parametrize("model", ["xlmr", "bert", "modernbert"])
def test_scores_are_near_those_in_float32(
    model: str, reference: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    folder, pairs = request.getfixturevalue(model), reference["pairs"]
    with RerankEngine(folder, **SETTINGS | {"dtype": "float32"}) as engine:
        exact = np.array(engine.score_pairs(pairs))
    with RerankEngine(folder, **SETTINGS) as engine:
        rounded = np.array(engine.score_pairs(pairs))
        assert engine.dtype == engine.stats().dtype == "int8"
    assert np.abs(rounded - exact).max() < 0.1 * np.ptp(exact)
    assert not np.array_equal(rounded, exact)


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_computes_in_what_is_native(
    dtype: torch.dtype, xlmr: str, reference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def attention(query: torch.Tensor, *states: Any, **named: Any) -> torch.Tensor:
        # the last layer's single queries stay in float32
        seen.update({query.dtype} if len(query) > len(reference["pairs"]) else ())
        return packed_attention(query, *states, **named)

    monkeypatch.setattr(encoders, "native_dtype", lambda _: dtype)
    monkeypatch.setattr(bert, "packed_attention", attention)
    with RerankEngine(xlmr, **SETTINGS) as engine:
        scores = engine.score_pairs(reference["pairs"])
    assert seen == {dtype}
    with RerankEngine(xlmr, **SETTINGS | {"dtype": "float32"}) as engine:
        exact = engine.score_pairs(reference["pairs"])
    assert np.abs(np.subtract(scores, exact)).max() < 0.1 * np.ptp(exact)


@needs_int8
def test_the_built_in_model_ranks_as_in_float32() -> None:
    questions = json.loads(QUESTIONS.read_text("utf-8"))["questions"]
    pairs = [(row["question"], passage) for row in questions for passage in row["passages"]]
    probabilities = {}
    for dtype in ("float32", "int8"):
        with RerankEngine("tiny", **SETTINGS | {"dtype": dtype, "normalize": True}) as engine:
            probabilities[dtype] = np.array(engine.score_pairs(pairs))
    exact, rounded = probabilities["float32"], probabilities["int8"]
    assert kendall_tau(exact, rounded) >= 0.96
    assert np.mean(np.abs(exact - rounded) > 0.05) <= 0.01


def test_without_exact_products_it_is_float32_and_the_log_says_so(
    xlmr: str,
    reference: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(devices, "weight_levels", lambda: None)
    golden = reference["scores"]["encoder/default"]["scores"]
    with RerankEngine(xlmr, **SETTINGS) as engine:
        assert engine.stats().dtype == "float32"
        np.testing.assert_allclose(
            engine.score_pairs(reference["pairs"]), golden, rtol=0, atol=1e-5
        )
    assert caplog.text.count('dtype="int8" runs as float32') == 1


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_it_is_for_cpus(device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"int8' is for device 'cpu', got .*{device}"):
        devices.resolve_dtype("int8", torch.device(device))


def test_it_is_for_encoders() -> None:
    with pytest.raises(ConfigurationError, match=r"for encoders, and .* of the decoder family"):
        RerankEngine(str(GOLDEN / "gemma"), recipe="bge-reranker-v2-gemma", **SETTINGS)


def test_it_is_for_encoders_that_are_packed(distilbert: str) -> None:
    with pytest.raises(ConfigurationError, match=r"without padding, and .* type 'distilbert'"):
        RerankEngine(distilbert, **SETTINGS)


@needs_int8
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    folder = Path(shutil.copytree(GOLDEN / "xlmr", tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["roberta.encoder.layer.0.output.dense.weight"][3, 2] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match="needs finite weights"):
        RerankEngine(str(folder), **SETTINGS)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_checkpoint_that_is_quantized_already_is_refused(tmp_path: Path, dtype: str) -> None:
    folder = Path(shutil.copytree(GOLDEN / "xlmr", tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = "roberta.encoder.layer.0.output.dense.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=f"{name} is int8, .* quantized already"):
        RerankEngine(str(folder), **SETTINGS | {"dtype": dtype})
    edit_json(folder / "config.json", quantization_config={"quant_method": "any"})
    with pytest.raises(UnsupportedModelError, match="has quantization_config"):
        RerankEngine(str(folder), **SETTINGS | {"dtype": dtype})
