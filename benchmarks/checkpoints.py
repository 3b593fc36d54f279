"""A checkpoint to measure: as it is, or with random weights, also in another model's shape."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from benchmarks.shapes import shape_of
from bge_rerank_integrations.engine.loading.recipes import PACKED_DECODERS


def with_weights(folder: Path, temporary: Path) -> Path:
    """The folder itself, or a copy in ``temporary`` that is filled with random weights.

    :param folder: ``config.json`` and a tokenizer, with or without weights.
    :param temporary: is removed by whoever made it.
    """
    if any(folder.glob("*.safetensors")):
        return folder
    return _fill(AutoConfig.from_pretrained(folder), folder, temporary / folder.name)


def with_shape(
    shape: str,
    folder: Path,
    temporary: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tiny: bool = False,
) -> Path:
    """Random weights in the shape of one of ``SHAPES``, for the tokenizer of another checkpoint.

    :param folder: its tokenizer is taken, and the embeddings get a row for each of its tokens.
    :param temporary: is removed by whoever made it.
    :param device: where the weights are made; billions take long on a CPU.
    :param dtype: what they are saved in.
    :param tiny: a few small layers in place of the shape's own.
    """
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    config = shape_of(shape, tokens, tiny=tiny)
    return _fill(config, folder, temporary / shape, device=device, dtype=dtype)


def _fill(
    config: PreTrainedConfig,
    folder: Path,
    filled: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Save random weights for this config beside the other files of ``folder``, if not yet done."""
    if any(filled.glob("*.safetensors")):
        return filled
    filled.mkdir(exist_ok=True)
    for file in folder.glob("*.json"):
        shutil.copyfile(file, filled / file.name)
    is_decoder = config.model_type in PACKED_DECODERS
    kind = AutoModelForCausalLM if is_decoder else AutoModelForSequenceClassification
    torch.manual_seed(0)
    with torch.device(device):
        model = kind.from_config(config, dtype=dtype)
    model.save_pretrained(filled)
    return filled
