"""ModernBERT rerankers against transformers' own class and sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL_MODERNBERT, edit_json, save_random
from fakes import load
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, ModernBertConfig

from bge_rerank_integrations import EngineConfig, ModelLoadError, RerankEngine
from bge_rerank_integrations.engine.scorers.heads import PaddedScorer
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate
from bge_rerank_integrations.settings import CallOptions

WORDS = ["panda", "bear", "of", "china", "eats", "bamboo", "leaves", "all", "day", "long"]
# from 4 tokens to several times the windows and the blocks that attention is computed in
PAIRS = [
    ("what is a panda?", " ".join(WORDS[n % 7 :] * (n % 5 + 1))[: 3 * n + 1])
    for n in range(0, 90, 7)
] + [("", "panda"), ("panda", ""), ("a b", "x")]
BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
LOCAL_LAST = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]


def make(folder: Path, **changes: Any) -> str:
    return save_random(ModernBertConfig(**{**SMALL_MODERNBERT, **changes}), folder)


def scores_of(folder: str | Path, pairs: list[tuple[str, str]], **settings: Any) -> list[float]:
    with RerankEngine(
        str(folder), dtype="float32", device="cpu", normalize=False, **settings
    ) as engine:
        return engine.score_pairs(pairs)


def is_padded(folder: str) -> bool:
    (scorer,) = load(EngineConfig(folder, device="cpu")).scorers
    return scorer.padded


def assert_equals_transformers(folder: str) -> None:
    """In three batches: all together, few at a time in another order, and each alone."""
    peer = CrossEncoder(folder, activation_fn=torch.nn.Identity(), device="cpu")
    expected = peer.predict(PAIRS)
    assert np.std(expected) > 0.02
    few = scores_of(folder, PAIRS[::-1], max_batch_tokens=90)[::-1]
    alone = scores_of(folder, PAIRS, max_batch_tokens=1)
    for scores in (scores_of(folder, PAIRS), few, alone):
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classifier_pooling": "mean"},
        {**dict.fromkeys(BIASES, True), "norm_eps": 0.1},
        {**dict.fromkeys(BIASES, True), "classifier_pooling": "mean", "num_hidden_layers": 5},
        {"local_attention": 7, "num_hidden_layers": 3},
        {"local_attention": 128, "num_hidden_layers": 6, "classifier_pooling": "mean"},
        {"layer_types": LOCAL_LAST},
        {"num_hidden_layers": 1},
    ],
    ids=str,
)
def test_scores_equal_sentence_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = make(tmp_path, **changes)
    assert not is_padded(folder)
    assert_equals_transformers(folder)


def test_configs_of_transformers_4(tmp_path: Path) -> None:
    folder = make(tmp_path, num_hidden_layers=5)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name in ("layer_types", "rope_parameters"):
        del config[name]
    old = {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 500.0,
        "local_rope_theta": 30.0,
    }
    path.write_text(json.dumps({**config, **old}))
    assert_equals_transformers(folder)


def test_thetas_of_transformers_5(tmp_path: Path) -> None:
    thetas = {"full_attention": 500.0, "sliding_attention": 30.0}
    ropes = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in thetas.items()}
    assert_equals_transformers(make(tmp_path, rope_parameters=ropes))


def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    defaults = {"num_hidden_layers": 22, "num_attention_heads": 12, "local_attention": 128}
    # heads of 12 dimensions: of 2, the only angle is the position itself, whatever theta is
    folder = make(tmp_path, hidden_size=144, initializer_range=0.1, **defaults)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    left_out = {
        *defaults,
        *BIASES,
        "norm_eps",
        "classifier_pooling",
        "layer_types",
        "rope_parameters",
        "hidden_activation",
        "classifier_activation",
    }
    path.write_text(json.dumps({name: config[name] for name in config.keys() - left_out}))
    peer = CrossEncoder(folder, activation_fn=torch.nn.Identity(), device="cpu")
    few = PAIRS[::4]
    expected = peer.predict(few)
    np.testing.assert_allclose(scores_of(folder, few), expected, rtol=0, atol=1e-5)
    # each of the defaults shows in the scores
    assert not is_padded(folder)
    for kind in ("full_attention", "sliding_attention"):
        edit_json(path, rope_parameters={kind: {"rope_type": "default", "rope_theta": 40_000.0}})
        assert np.abs(np.subtract(scores_of(folder, few), expected)).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_activation": "silu"},
        {"classifier_activation": "relu"},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ],
    ids=["hidden activation", "head's activation", "scaled positions"],
)
def test_what_is_not_packed_is_padded(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = make(tmp_path, **changes)
    assert is_padded(folder)
    assert_equals_transformers(folder)


def test_scaled_positions_of_transformers_4_are_padded(modernbert: str, tmp_path: Path) -> None:
    for file in Path(modernbert).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert not is_padded(str(tmp_path))
    edit_json(tmp_path / "config.json", rope_scaling={"type": "linear", "factor": 4.0})
    assert is_padded(str(tmp_path))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_windows_of_a_long_document(pooling: str, tmp_path: Path) -> None:
    folder = make(tmp_path, classifier_pooling=pooling)
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    template = PairTemplate.from_tokenizer(tokenizer)
    tokenize = PairTokenizer(tokenizer, template)
    document = " ".join(WORDS * 12)
    layout = tokenize.layout(CallOptions(max_length=150, long_documents="window"))
    ((*windows,),) = tokenize([("what is a panda?", document)], layout)
    assert len(windows) > 3
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    expected = np.asarray(PaddedScorer(model, template.passage_type).score(windows)).max()
    (score,) = scores_of(
        folder, [("what is a panda?", document)], max_length=150, long_documents="window"
    )
    assert score == pytest.approx(expected, abs=1e-5)


def test_bfloat16_is_within_its_noise(modernbert: str) -> None:
    exact = scores_of(modernbert, PAIRS)
    with RerankEngine(modernbert, dtype="bfloat16", device="cpu", normalize=False) as engine:
        np.testing.assert_allclose(engine.score_pairs(PAIRS), exact, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size must be a positive integer, got None"),
        ({"hidden_size": 63}, "hidden_size 63 is no multiple of num_attention_heads 2"),
        ({"num_attention_heads": 64}, "hidden_size / num_attention_heads must be even"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, got 0"),
        ({"local_attention": "128"}, "local_attention must be a positive integer, got '128'"),
        ({"norm_eps": 0}, "norm_eps must be a positive number, got 0"),
        ({"mlp_bias": "false"}, "mlp_bias must be true or false, got 'false'"),
        ({"classifier_pooling": "max"}, "classifier_pooling must be 'cls' or 'mean', got 'max'"),
        ({"layer_types": ["full_attention"]}, "layer_types must name 4 of full_attention"),
        ({"layer_types": ["chunked"] * 4}, "layer_types must name 4 of full_attention"),
        ({"layer_types": [[]] * 4}, "layer_types must name 4 of full_attention"),
        ({"rope_parameters": 3}, "rope_parameters must be an object, got 3"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": -1}}},
            "rope_theta must be a positive number, got -1",
        ),
        (
            {"rope_parameters": {}, "local_rope_theta": "1e4"},
            "local_rope_theta must be a positive number, got '1e4'",
        ),
        (
            {"layer_types": None, "global_attn_every_n_layers": 0},
            "global_attn_every_n_layers must be a positive integer, got 0",
        ),
    ],
)
def test_values_that_cannot_be(
    changes: dict[str, Any], message: str, modernbert: str, tmp_path: Path
) -> None:
    for file in Path(modernbert).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(ModelLoadError, match=f"{tmp_path.name}.*config.json: {message}"):
        scores_of(tmp_path, PAIRS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 200}, "model.embeddings.tok_embeddings.weight is of another shape"),
        ({"intermediate_size": 47}, "model.layers.0.mlp.Wi.weight is of another shape"),
        ({"attention_bias": True}, "model.layers.0.attn.Wo.bias is missing"),
        ({"norm_bias": True}, "head.norm.bias is missing"),
        ({"num_hidden_layers": 5, "layer_types": None}, "model.layers.4.* is missing"),
    ],
)
def test_what_the_weights_do_not_have(
    changes: dict[str, Any], message: str, modernbert: str, tmp_path: Path
) -> None:
    for file in Path(modernbert).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(ModelLoadError, match=message):
        scores_of(tmp_path, PAIRS)
