"""Average checkpoints and write the folder that is shipped."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "tokenize_chinese_chars": True,
    "strip_accents": None,
    "model_max_length": 512,
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def average(checkpoints: Sequence[Path]) -> BertForSequenceClassification:
    """The model whose weights are the mean of the checkpoints' weights."""
    model = BertForSequenceClassification.from_pretrained(checkpoints[-1])
    states = [load_file(folder / "model.safetensors") for folder in checkpoints]
    mean = {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
    model.load_state_dict(mean)
    model.train(False)
    return model


def export(model: BertForSequenceClassification, tokenizer_file: Path, folder: Path) -> None:
    """Write config, float16 weights and the tokenizer without padding or truncation of its own."""
    model.config.id2label = {0: "relevance"}
    model.config.label2id = {"relevance": 0}
    model.config.dtype = "float16"
    weights = {name: tensor.to(torch.float16) for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    weights_file = folder / "model.safetensors"
    save_file(weights, weights_file, metadata={"format": "pt"})
    # safetensors writes files that only their owner can read, and a wheel keeps that.
    weights_file.chmod(0o644)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(TOKENIZER_CONFIG, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
