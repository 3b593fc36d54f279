from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.engine.scorers import linear
from bge_rerank_integrations.engine.scorers.linear import PlainLinear, PrepackedLinear, make_linear

HAS_PREPACKED = linear.has_prepacked(torch.float32)


@pytest.fixture(params=["plain", "prepacked"])
def layer(request: pytest.FixtureRequest) -> tuple[linear.Linear, torch.Tensor, torch.Tensor]:
    """A layer of each kind, with its weight and bias."""
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 40), torch.randn(24)
    if request.param == "plain":
        return PlainLinear(weight, bias), weight, bias
    if not HAS_PREPACKED:
        pytest.skip("this torch or CPU has no prepacked linear layers")
    return PrepackedLinear(weight, bias), weight, bias


@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize("fuses_gelu", [True, False])
def test_layers_equal_the_formula(
    layer: Any, tokens: int, fuses_gelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_FUSES_GELU", fuses_gelu)
    run, weight, bias = layer
    assert_equals_formula(run, weight, bias, tokens)


@pytest.mark.parametrize("kind", [PlainLinear, make_linear])
def test_layers_without_bias_equal_the_formula(kind: Any) -> None:
    weight = torch.randn(24, 40)
    assert_equals_formula(kind(weight, None), weight, torch.zeros(24), 7)


def assert_equals_formula(
    run: linear.Linear, weight: torch.Tensor, bias: torch.Tensor, tokens: int
) -> None:
    rows, residual = torch.randn(tokens, 40), torch.randn(tokens, 24)
    product = rows @ weight.T + bias
    torch.testing.assert_close(run(rows), product, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run.gelu(rows), gelu(product), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run.add(rows, residual), product + residual, atol=1e-5, rtol=1e-5)
    times = run.multiply(rows, residual)
    torch.testing.assert_close(times, product * residual, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("missing", ["build", "operator", "instruction"])
def test_without_the_operators_layers_are_plain(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def refuse(*_: object) -> None:
        raise AttributeError if missing == "operator" else RuntimeError("needs avx512")

    if missing == "build":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(PrepackedLinear, "__init__", refuse)
    made = make_linear(torch.ones(2, 2), torch.ones(2))
    assert isinstance(made, PlainLinear)


@pytest.mark.parametrize(("dtype", "noise"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_scores_are_the_same_without_the_operators(
    monkeypatch: pytest.MonkeyPatch, xlmr: str, reference: dict[str, Any], dtype: Any, noise: float
) -> None:
    monkeypatch.setattr(linear, "has_prepacked", lambda _: False)
    golden = reference["scores"]["encoder/default"]["scores"]
    with RerankEngine(xlmr, dtype=dtype, device="cpu", normalize=False) as engine:
        scores = engine.score_pairs(reference["pairs"])
    np.testing.assert_allclose(scores, golden, rtol=0, atol=noise)
