"""What Apple's GPU would be given: torch keeps a compiled kernel there for every shape."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from paths import GOLDEN

from bge_rerank_integrations.engine.loading.encoders import make_body, make_head
from bge_rerank_integrations.engine.scorers import attention, bert, linear
from bge_rerank_integrations.engine.scorers.heads import EncoderScorer
from bge_rerank_integrations.engine.scorers.linear import PlainLinear, n_padding_rows
from bge_rerank_integrations.engine.scorers.weights import WeightFiles, Weights
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence

CPU = torch.device("cpu")
CALLS = 300
LONGEST = 60
# of a call; so many sequences are one batch, whatever their lengths
SEQUENCES = 8

LAYERS = {"embedding", "layer_norm", "linear", "gelu", "scaled_dot_product_attention"}
Shapes = dict[str, set[tuple[tuple[int, ...], ...]]]


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Shapes:
    """Let the CPU be given what Apple's GPU would be, and note the shapes that each layer reads."""
    seen: Shapes = defaultdict(set)

    def noting(name: str, run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def noted(*inputs: Any, **settings: Any) -> torch.Tensor:
            tensors = (each for each in inputs if isinstance(each, torch.Tensor))
            seen[name].add(tuple(tuple(tensor.shape) for tensor in tensors))
            return run(*inputs, **settings)

        return noted

    monkeypatch.setattr(attention, "_BOUNDED_DEVICE", "cpu")
    for module, names in {
        linear: ("linear", "gelu", "layer_norm"),
        attention: ("scaled_dot_product_attention",),
        bert: ("embedding",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    return seen


def scorer_of(name: str) -> EncoderScorer:
    folder = GOLDEN / name
    config = json.loads((folder / "config.json").read_text("utf-8"))
    weights = Weights(WeightFiles(folder), CPU, torch.float32, make_linear=PlainLinear)
    head = make_head(config, weights)
    body = weights.module("roberta" if name == "xlmr" else "model")
    return EncoderScorer(make_body(config, body, passage_type=0, pooling=head.pooling), head)


def random_batch(random: np.random.Generator) -> list[TokenSequence]:
    lengths = np.sort(random.integers(4, LONGEST, random.integers(1, SEQUENCES)))
    return [TokenSequence(random.integers(5, 50, n).astype(np.int32), 2, int(n)) for n in lengths]


def test_rows_are_padded_on_apples_gpu_as_on_a_cpu() -> None:
    mps = torch.device("mps")
    for rows in (1, 16, 63, 100, 4_096):
        assert n_padding_rows(rows, mps) == n_padding_rows(rows, CPU)
    assert n_padding_rows(100, torch.device("cuda")) == 0


def test_hundreds_of_random_calls_give_the_layers_few_shapes(shapes: Shapes) -> None:
    scorer = scorer_of("xlmr")
    random = np.random.default_rng(0)
    for _ in range(CALLS):
        scorer.score(random_batch(random))
    # of tokens or sequences: multiples of 64 up to the largest batch, and of 16 up to the first
    row_counts = SEQUENCES * LONGEST // 64 + 1 + 4
    # with each row count, as many as there are weights of different shapes
    assert shapes.keys() == LAYERS
    assert max(map(len, shapes.values())) <= 5 * row_counts
    # one length after rounding, of all tokens or of the first one as queries
    assert len(shapes["scaled_dot_product_attention"]) == 2


@pytest.mark.usefixtures("shapes")
def test_logits_are_the_same_in_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of("xlmr")
    batch = random_batch(np.random.default_rng(1))
    bounded = scorer.score(batch)
    monkeypatch.setattr(attention, "_BOUNDED_DEVICE", "mps")
    np.testing.assert_allclose(bounded, scorer.score(batch), atol=1e-6)
