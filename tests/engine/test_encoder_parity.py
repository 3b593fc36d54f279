"""Encoders against sentence-transformers, and against our own padded pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes import load
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.engine.scorers.heads import EncoderScorer, PaddedScorer
from bge_rerank_integrations.engine.scorers.linear import Linear, PlainLinear, PrepackedLinear
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate
from bge_rerank_integrations.settings import CallOptions

EXACT = 1e-5
TEXTS = [
    "What is the capital of France?",
    "Paris is the capital of France. " * 30,
    "",
    "   ",
    "a",
    "日本語 🎉 mixed with <pad> and <s> and </s>",
    "The giant panda, sometimes called a panda bear, is endemic to China.",
]
PAIRS = [(query, passage) for query in TEXTS for passage in TEXTS]


@pytest.mark.parametrize("checkpoint", ["xlmr", "bert", "distilbert"])
@pytest.mark.parametrize("max_batch_tokens", [None, 50])
def test_scores_equal_sentence_transformers(
    request: pytest.FixtureRequest, checkpoint: str, max_batch_tokens: int | None
) -> None:
    folder = request.getfixturevalue(checkpoint)
    # the longest pair fits: sentence-transformers trims both texts, the reference the passage
    pairs = [(query[:40], passage[:60]) for query, passage in PAIRS]
    peer = CrossEncoder(folder, activation_fn=torch.nn.Identity(), device="cpu")
    expected = peer.predict(pairs, convert_to_numpy=True)
    with RerankEngine(
        folder,
        dtype="float32",
        device="cpu",
        normalize=False,
        query_max_length=100,
        max_batch_tokens=max_batch_tokens,
    ) as engine:
        np.testing.assert_allclose(engine.score_pairs(pairs), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("checkpoint", ["xlmr", "bert", "modernbert"])
def test_packed_equals_padded(request: pytest.FixtureRequest, checkpoint: str) -> None:
    folder = request.getfixturevalue(checkpoint)
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    template = PairTemplate.from_tokenizer(tokenizer)
    tokenize = PairTokenizer(tokenizer, template)
    layout = tokenize.layout(CallOptions(max_length=100))
    batch = [sequence for (sequence,) in tokenize(PAIRS, layout)]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    padded = PaddedScorer(model, template.passage_type).score(batch)
    (scorer,) = load(EngineConfig(folder, device="cpu", dtype="float32")).scorers
    assert isinstance(scorer, EncoderScorer)
    packed = np.asarray(scorer.score(batch))
    assert packed.shape == (len(batch), 1)
    np.testing.assert_allclose(packed, padded, rtol=0, atol=EXACT)


def test_a_score_does_not_depend_on_its_batch(engine: RerankEngine) -> None:
    together = engine.score_pairs(PAIRS)
    alone = [engine.score_pairs([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, rtol=0, atol=EXACT)


def test_bfloat16_is_within_its_noise(xlmr: str, reference: dict[str, Any]) -> None:
    golden = reference["scores"]["encoder/default"]["scores"]
    with RerankEngine(xlmr, dtype="bfloat16", device="cpu", normalize=False) as engine:
        scores = engine.score_pairs(reference["pairs"])
    np.testing.assert_allclose(scores, golden, rtol=0, atol=0.02)


def test_architectures_that_cannot_be_packed_are_padded(distilbert: str) -> None:
    (scorer,) = load(EngineConfig(distilbert, device="cpu")).scorers
    assert isinstance(scorer, PaddedScorer)


def test_few_different_numbers_of_rows_reach_the_linear_layers(
    engine: RerankEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN keeps a compiled product for each: the soak grew by 7 MB in 1,000 calls."""
    rows: set[int] = set()

    def count(kind: Any, name: str) -> None:
        method = getattr(kind, name)

        def counting(layer: Linear, states: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
            rows.add(len(states))
            return method(layer, states, *more)

        monkeypatch.setattr(kind, name, counting)

    for kind in (PlainLinear, PrepackedLinear):
        for name in ("__call__", "gelu", "add", "multiply"):
            count(kind, name)
    for words in range(1, 100, 3):
        engine.score("query", ["word " * words, "one more"])
    assert rows <= {16, 32, 48, *range(64, 512, 64)}
