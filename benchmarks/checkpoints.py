"""A checkpoint to measure: as it is, or with random weights, also in another model's shape."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    ModernBertConfig,
    PreTrainedConfig,
)

# what ModernBERT rerankers have other than transformers' defaults
SHAPES: dict[str, dict[str, Any]] = {
    "gte-reranker-modernbert-base": {"classifier_pooling": "mean"},
    "ettin-reranker-32m": {
        "hidden_size": 384,
        "intermediate_size": 576,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
    },
}


def with_weights(folder: Path, temporary: Path) -> Path:
    """The folder itself, or a copy in ``temporary`` that is filled with random weights.

    :param folder: ``config.json`` and a tokenizer, with or without weights.
    :param temporary: is removed by whoever made it.
    """
    if any(folder.glob("*.safetensors")):
        return folder
    return _fill(AutoConfig.from_pretrained(folder), folder, temporary / folder.name)


def with_shape(shape: str, folder: Path, temporary: Path) -> Path:
    """Random weights in the shape of one of ``SHAPES``, for the tokenizer of another checkpoint.

    :param folder: its tokenizer is taken, and the embeddings get a row for each of its tokens.
    :param temporary: is removed by whoever made it.
    """
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    # the defaults may lie beyond the vocabulary, and change no figure
    special = {f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "cls", "sep")}
    config = ModernBertConfig(**SHAPES[shape], **special, vocab_size=tokens, num_labels=1)
    return _fill(config, folder, temporary / shape)


def _fill(config: PreTrainedConfig, folder: Path, filled: Path) -> Path:
    """Save random weights for this config, beside the other files of ``folder``."""
    filled.mkdir()
    for file in folder.glob("*.json"):
        shutil.copyfile(file, filled / file.name)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(filled)
    return filled
