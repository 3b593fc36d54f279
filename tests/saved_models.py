"""Tiny random cross-encoders, saved by sentence-transformers itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from checkpoints import SMALL, edit_json, save_byte_level_tokenizer, save_checkpoint
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

CHAT = (
    '{% set system = messages | selectattr("role", "eq", "system") | first %}'
    "<|im_start|>{% if system %}{{ system.content }} ; {% endif %}"
    '<Query>: {{ (messages | selectattr("role", "eq", "query") | first).content }}\n'
    '<Document>: {{ (messages | selectattr("role", "eq", "document") | first).content }}'
    "\n\n<|im_end|>\n"
    "Relevant?{% if add_generation_prompt %} {{ eos_token }}{% endif %}"
)
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


def randomize(model: torch.nn.Module) -> None:
    """Make norms and biases random too, as those of trained models are."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)


def save_base(config: Any, folder: Path, auto: Any) -> str:
    """A random model of transformers, with a tokenizer."""
    torch.manual_seed(3)
    model = auto.from_config(config)
    randomize(model)
    return save_checkpoint(model, folder)


def save_classifier(config: Any, folder: Path, activation: torch.nn.Module | None = None) -> str:
    """A sequence classification of one label."""
    base = save_base(config, folder / "base", AutoModelForSequenceClassification)
    return _save(CrossEncoder(base, activation_fn=activation, device="cpu"), folder)


def save_modules(
    config: Any,
    folder: Path,
    modules: Sequence[torch.nn.Module],
    **options: Any,
) -> str:
    """A transformer and modules behind it.

    :param options: of ``CrossEncoder``.
    """
    base = save_base(config, folder / "base", AutoModel)
    transformer = Transformer(base, transformer_task="feature-extraction")
    for module in modules:
        randomize(module)
    return _save(CrossEncoder(modules=[transformer, *modules], device="cpu", **options), folder)


def dense_head(pooling: Any, hidden: int = SMALL["hidden_size"]) -> list[torch.nn.Module]:  # type: ignore[assignment]
    """Pooling and modules as ettin's rerankers have them."""
    return [
        Pooling(hidden, pooling),
        Dense(hidden, hidden, activation_function=torch.nn.GELU(), use_residual=pooling == "mean"),
        LayerNorm(hidden),
        Normalize() if pooling == "cls" else Dense(hidden, hidden, bias=False),
        Dense(hidden, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]


def save_decoder(
    config: Any,
    folder: Path,
    answer: tuple[int, int | None],
    chat_template: str = CHAT,
    max_length: int = 128,
    processing: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """A text generator, a chat template and LogitScore."""
    base = folder / "base"
    save_base(config, base, AutoModelForCausalLM)
    save_byte_level_tokenizer(base, ["Query Document Relevant? a bear of China"] * 9, 295)
    names = {"model_max_length": max_length, "eos_token": "<|im_end|>"}
    edit_json(base / "tokenizer_config.json", **names)
    (base / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    transformer = Transformer(
        str(base), transformer_task="text-generation", processing_kwargs=processing
    )
    modules = [transformer, LogitScore(*answer)]
    return _save(CrossEncoder(modules=modules, device="cpu", **options), folder)


def _save(model: CrossEncoder, folder: Path) -> str:
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)
