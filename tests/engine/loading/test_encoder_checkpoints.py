"""Encoders in all the forms that they are saved in, against transformers' own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL, edit_json, save_random, write_json
from fakes import load
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import (
    BertConfig,
    CamembertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from bge_rerank_integrations import (
    EngineConfig,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.engine.scorers import Scorer

PAIRS = [("what is a panda?", "a bear of China"), ("panda", ""), ("", "x" * 50), ("a b c", "d e")]


def make_bert(folder: Path, **changes: Any) -> str:
    return save_random(BertConfig(**SMALL, num_labels=1, **changes), folder)


def engine_scores(folder: str | Path) -> list[float]:
    with RerankEngine(str(folder), dtype="float32", device="cpu", normalize=False) as engine:
        return engine.score_pairs(PAIRS)


def assert_equals_transformers(folder: str) -> None:
    peer = CrossEncoder(folder, activation_fn=torch.nn.Identity(), device="cpu")
    np.testing.assert_allclose(engine_scores(folder), peer.predict(PAIRS), rtol=0, atol=1e-5)


def scorer_of(folder: str) -> Scorer:
    (scorer,) = load(EngineConfig(folder, device="cpu")).scorers
    return scorer


@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig, XLMRobertaConfig, CamembertConfig])
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_every_type_that_is_packed(kind: Any, eps: float, tmp_path: Path) -> None:
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = kind(**SMALL, num_labels=1, layer_norm_eps=eps, **special)
    folder = save_random(config, tmp_path)
    assert not scorer_of(folder).padded
    assert_equals_transformers(folder)


def test_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    folder = save_random(BertConfig(**SMALL, num_labels=1), tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equals_transformers(folder)


def test_names_of_old_checkpoints(tmp_path: Path) -> None:
    """Norms converted from TensorFlow have gamma and beta; positions were saved as a tensor."""
    folder = make_bert(tmp_path)
    expected = engine_scores(folder)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()
    old["bert.embeddings.position_ids"] = torch.arange(128)[None]
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert engine_scores(folder) == expected
    assert_equals_transformers(folder)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision(stored: torch.dtype, tmp_path: Path) -> None:
    folder = make_bert(tmp_path)
    half = {n: t.to(stored) for n, t in load_file(tmp_path / "model.safetensors").items()}
    save_file(half, tmp_path / "model.safetensors", metadata={"format": "pt"})
    in_half = engine_scores(folder)
    whole = {name: tensor.float() for name, tensor in half.items()}
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert engine_scores(folder) == in_half


def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 12, "num_attention_heads": 12}
    folder = save_random(BertConfig(**{**SMALL, **sizes}, num_labels=1), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    defaults = {"type_vocab_size", "layer_norm_eps", "pad_token_id", "hidden_act", *sizes}
    left = {name: config[name] for name in config.keys() - defaults | {"hidden_size"}}
    write_json(tmp_path / "config.json", left)
    assert_equals_transformers(folder)


def test_an_activation_that_is_not_packed(tmp_path: Path) -> None:
    folder = make_bert(tmp_path, hidden_act="relu")
    assert scorer_of(folder).padded
    assert_equals_transformers(folder)


@pytest.mark.parametrize("model_type", ["bert", "camembert"])
def test_positions_that_would_be_read_wrongly(model_type: str, tmp_path: Path) -> None:
    make_bert(tmp_path)
    kind = {"bert": "Bert", "camembert": "Camembert"}[model_type]
    changes = {"model_type": model_type, "position_embedding_type": "relative_key"}
    edit_json(tmp_path / "config.json", architectures=[f"{kind}ForSequenceClassification"])
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(UnsupportedModelError, match="position_embedding_type 'relative_key'"):
        engine_scores(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a positive integer, got 0"),
        ({"hidden_size": None}, "hidden_size must be a positive integer, got None"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be a positive integer, got -1"),
        ({"vocab_size": "many"}, "vocab_size must be a positive integer, got 'many'"),
        ({"layer_norm_eps": "NaN"}, "layer_norm_eps must be a positive number, got 'NaN'"),
    ],
)
def test_sizes_that_are_none(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_bert(tmp_path)
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(ModelLoadError, match=f"{tmp_path.name}.*config.json: {message}"):
        engine_scores(tmp_path)


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        ({"vocab_size": 299}, "bert.embeddings.word_embeddings.weight"),
        ({"intermediate_size": 65}, "bert.encoder.layer.0.intermediate.dense.weight"),
        ({"max_position_embeddings": 129}, "bert.embeddings.position_embeddings.weight"),
    ],
)
def test_sizes_that_the_weights_do_not_have(
    change: dict[str, int], tensor: str, tmp_path: Path
) -> None:
    make_bert(tmp_path)
    edit_json(tmp_path / "config.json", **change)
    with pytest.raises(ModelLoadError, match=f"{tensor} is of another shape than config.json says"):
        engine_scores(tmp_path)


def test_layers_that_the_weights_do_not_have(tmp_path: Path) -> None:
    make_bert(tmp_path)
    edit_json(tmp_path / "config.json", num_hidden_layers=4)
    with pytest.raises(ModelLoadError, match=r"bert\.encoder\.layer\.3\..* is missing"):
        engine_scores(tmp_path)
