"""Weights as jina-reranker-v2 stores them, made of a transformers checkpoint by published names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL, edit_json, save_random
from fakes import load
from safetensors.torch import load_file, save_file
from transformers import XLMRobertaConfig

from bge_rerank_integrations import (
    EngineConfig,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.engine.scorers.heads import EncoderScorer

SETTINGS: Any = {"dtype": "float32", "device": "cpu", "normalize": False}
DOCUMENTS = ["a bear of China", "", "x" * 60, "who? [PAD] me"]
FLASH = "configuration_xlm_roberta.XLMRobertaFlashConfig"


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The steps of convert_roberta_weights_to_flash.py."""
    layer = r"roberta\.encoder\.layer\.(\d+)\."
    steps = {
        r"roberta\.embeddings\.LayerNorm\.": "roberta.emb_ln.",
        layer + r"attention\.output\.LayerNorm\.": r"roberta.encoder.layers.\1.norm1.",
        layer + r"output\.LayerNorm\.": r"roberta.encoder.layers.\1.norm2.",
        layer + r"intermediate\.dense\.": r"roberta.encoder.layers.\1.mlp.fc1.",
        layer + r"output\.dense\.": r"roberta.encoder.layers.\1.mlp.fc2.",
        layer + r"attention\.output\.dense\.": r"roberta.encoder.layers.\1.mixer.out_proj.",
    }
    flash = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(layer + r"attention\.self\.(query|key|value)\.(\w+)", name)
        if match is None:
            for old, new in steps.items():
                name = re.sub(f"^{old}", new, name)
            flash[name] = tensor
        elif match[2] == "query":
            parts = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
            flash[f"roberta.encoder.layers.{match[1]}.mixer.Wqkv.{match[3]}"] = torch.cat(parts)
    return flash


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = XLMRobertaConfig(**SMALL, pad_token_id=0, num_labels=1)
    return Path(save_random(config, tmp_path_factory.mktemp("plain")))


@pytest.fixture
def flash(plain: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(plain, tmp_path / "jina-reranker-v2-base-multilingual"))
    weights = folder / "model.safetensors"
    save_file(renamed(load_file(weights)), weights)
    edit_json(folder / "config.json", model_type="", auto_map={"AutoConfig": FLASH})
    return folder


def test_scores_equal_those_of_the_model_under_transformers_names(plain: Path, flash: Path) -> None:
    with RerankEngine(str(plain), **SETTINGS) as one, RerankEngine(str(flash), **SETTINGS) as other:
        expected = one.score("what is a panda?", DOCUMENTS)
        assert np.ptp(expected) > 0.01
        assert other.score("what is a panda?", DOCUMENTS) == expected
        # one position is padding's
        assert other.max_length == one.max_length == SMALL["max_position_embeddings"] - 1
    (scorer,) = load(EngineConfig(str(flash), device="cpu")).scorers
    assert isinstance(scorer, EncoderScorer)


def test_rotary_positions_are_refused(flash: Path) -> None:
    edit_json(flash / "config.json", position_embedding_type="rotary")
    with pytest.raises(UnsupportedModelError, match="position_embedding_type 'rotary'"):
        RerankEngine(str(flash), **SETTINGS)


def test_a_joined_tensor_of_another_shape_is_named(flash: Path) -> None:
    weights = flash / "model.safetensors"
    tensors = load_file(weights)
    name = "roberta.encoder.layers.1.mixer.Wqkv.weight"
    save_file({**tensors, name: tensors[name][:64].clone()}, weights)
    with pytest.raises(ModelLoadError, match=rf"{re.escape(name)} is of another shape"):
        RerankEngine(str(flash), **SETTINGS)
