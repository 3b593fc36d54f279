"""Makes tiny random checkpoints in temporary folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


# windows of 4 tokens on either side, and a global layer before and behind two local ones
SMALL_MODERNBERT = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "local_attention": 8,
    "initializer_range": 0.2,
    "num_labels": 1,
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
}


def save_random(config: PreTrainedConfig, folder: Path, **options: Any) -> str:
    """A random checkpoint whose norms and biases are random too, as those of trained models are."""
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return save_checkpoint(model, folder, **options)


def save_checkpoint(model: PreTrainedModel, folder: Path, **options: Any) -> str:
    """Save a model with a BERT-like tokenizer of letters.

    :param options: of ``save_pretrained``.
    """
    model.save_pretrained(folder, **options)
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), _SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs, **names}
    write_json(folder / "tokenizer_config.json", config)
    return str(folder)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    """Change some values of a JSON file."""
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})
