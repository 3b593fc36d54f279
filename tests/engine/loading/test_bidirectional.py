"""Llama's layers read both ways, against transformers' LlamaModel with a mask for padding alone.

transformers has no class for such checkpoints, which bring code of their own.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import SMALL, edit_json, save_byte_level_tokenizer, save_random
from safetensors.torch import load_file
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from bge_rerank_integrations import (
    ConfigurationError,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)

SETTINGS: Any = {"dtype": "float32", "device": "cpu", "normalize": False}
QUERIES = ["what is a panda?", "who ", "a\n", "", "1, 2: "]
DOCUMENTS = ["a bear of China", "", "x" * 40, "\n\nnew line ", " lead", "who? passage:me"]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
CONFIG: dict[str, Any] = {
    **SMALL,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "num_labels": 1,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
TEMPERATURE = 0.4


@pytest.fixture(scope="module")
def nemotron(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("nemotron") / "llama-nemotron-rerank-1b-v2"
    save_random(LlamaConfig(**CONFIG), folder)
    save_byte_level_tokenizer(folder, ["who?  \n \n", "a\n \n \n"] * 9, 295)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos = "<|im_start|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": bos, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    edit_json(folder / "tokenizer_config.json", **names)
    module = "llama_bidirectional_model.LlamaBidirectional"
    edit_json(
        folder / "config.json",
        model_type="llama_bidirec",
        architectures=["LlamaBidirectionalForSequenceClassification"],
        auto_map={
            "AutoConfig": f"{module}Config",
            "AutoModelForSequenceClassification": f"{module}ForSequenceClassification",
        },
        pooling="avg",
        temperature=TEMPERATURE,
    )
    return str(folder)


def reference_logits(folder: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [f"question:{query} \n \n passage:{document}" for query, document in PAIRS]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    model = LlamaModel(LlamaConfig(**CONFIG)).eval()
    stored = load_file(f"{folder}/model.safetensors")
    model.load_state_dict(
        {name[6:]: tensor for name, tensor in stored.items() if name.startswith("model.")}
    )
    real = inputs["attention_mask"].bool()
    length = real.shape[1]
    hidden_from = ~real[:, None, None, :].expand(-1, 1, length, -1)
    mask = torch.zeros(len(PAIRS), 1, length, length).masked_fill(hidden_from, -1e9)
    with torch.inference_mode():
        states = model(inputs["input_ids"], attention_mask=mask).last_hidden_state
    means = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    return (means @ stored["score.weight"][0] / TEMPERATURE).numpy()


def test_scores_equal_llama_with_a_full_mask(nemotron: str) -> None:
    expected = reference_logits(nemotron)
    assert np.ptp(expected) > 0.1
    with RerankEngine(nemotron, **SETTINGS) as engine:
        together = engine.score_pairs(PAIRS)
        alone = [engine.score_pairs([pair])[0] for pair in PAIRS]
        parts = [*engine.score_pairs(PAIRS[:7]), *engine.score_pairs(PAIRS[7:])]
    for answer in (together, alone, parts):
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)


def test_the_prompt_must_be_named(nemotron: str, tmp_path: Path) -> None:
    """The tokenizer has a template for pairs, which is not what the model reads."""
    folder = str(shutil.copytree(nemotron, tmp_path / "model"))
    with pytest.raises(UnsupportedModelError, match="nothing proves how it scores a pair"):
        RerankEngine(folder, **SETTINGS)
    with pytest.raises(ConfigurationError, match="recipe 'qwen3-reranker' is for Qwen3"):
        RerankEngine(folder, recipe="qwen3-reranker", **SETTINGS)
    with (
        RerankEngine(folder, recipe="nemotron-rerank", **SETTINGS) as named,
        RerankEngine(nemotron, **SETTINGS) as known,
    ):
        assert named.score("q", ["a", "b"]) == known.score("q", ["a", "b"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "cls"}, "the pooling 'cls', not 'avg'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "of type 'dynamic'"),
    ],
)
def test_what_is_not_run_is_refused(
    nemotron: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(nemotron, tmp_path / "llama-nemotron-rerank-1b-v2"))
    edit_json(folder / "config.json", **changes)
    with pytest.raises(UnsupportedModelError, match=message):
        RerankEngine(str(folder), **SETTINGS)


def test_a_temperature_that_is_none_is_named(nemotron: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nemotron, tmp_path / "llama-nemotron-rerank-1b-v2"))
    edit_json(folder / "config.json", temperature=0)
    with pytest.raises(ModelLoadError, match="temperature must be a positive number, got 0"):
        RerankEngine(str(folder), **SETTINGS)
