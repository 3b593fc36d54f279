"""A checkpoint to measure: as it is, or with random weights where a folder has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification


def with_weights(folder: Path, temporary: Path) -> Path:
    """The folder itself, or a copy in ``temporary`` that is filled with random weights.

    :param folder: ``config.json`` and a tokenizer, with or without weights.
    :param temporary: is removed by whoever made it.
    """
    if any(folder.glob("*.safetensors")):
        return folder
    filled = temporary / folder.name
    filled.mkdir()
    for file in folder.glob("*.json"):
        shutil.copyfile(file, filled / file.name)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(filled)
    return filled
