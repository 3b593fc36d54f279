"""Encoders → scorers: packed where the layers are known, else padded by transformers.

Body and head are made apart, so that a body may get another head than its own class's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear, normalize

from ...errors import ConfigurationError, ModelLoadError, UnsupportedModelError
from ..scorers import Scorer, encoder_configs
from ..scorers.bert import Bert, bert_head
from ..scorers.encoder_configs import BertConfig, ModernBertConfig
from ..scorers.heads import (
    ACTIVATIONS,
    EncoderBody,
    EncoderScorer,
    Head,
    HeadModule,
    Pooling,
    States,
    activation_name,
)
from ..scorers.int8 import Int8Layers
from ..scorers.modernbert import ModernBert, modernbert_head
from ..scorers.weights import WeightFiles, Weights
from .checkpoint import Checkpoint
from .devices import keep_batch_memory, native_dtype, return_freed_memory
from .recipes import Source

Config = Mapping[str, Any]

# pairs in several languages, by which layers of eight bits are calibrated
_SAMPLE_PAIRS = Path(__file__).with_name("sample_pairs.json")
# torch's default, which sentence-transformers' LayerNorm has
_LAYER_NORM_EPS = 1e-5


def make_encoder(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """A classifier of one label, or a body with the recipe's modules behind it.

    :raises ConfigurationError: for int8 and layers that cannot be packed.
    """
    checkpoint = source.checkpoint
    if not encoder_configs.is_packable(checkpoint.config):
        if source.config.dtype == "int8":
            raise ConfigurationError(
                "dtype 'int8' is for encoders that run without padding, and "
                f"{checkpoint.folder.name} is of type {checkpoint.model_type!r}"
            )
        # transformers' model classes take seconds to import
        from .transformers_models import make_padded

        return make_padded(source, device, dtype)
    if dtype is torch.int8:
        return _make_int8(source, device)
    return _make_packed(source, Weights(source.files, device, dtype))


def _make_int8(source: Source, device: torch.device) -> EncoderScorer:
    """Linear layers in 8 bits, attention in what is native, all else in float32."""
    layers = Int8Layers()
    weights = Weights(
        source.files,
        device,
        torch.float32,
        make_linear=layers.make,
        attention_dtype=native_dtype(device),
    )
    scorer = _make_packed(source, weights)
    pairs = json.loads(_SAMPLE_PAIRS.read_text(encoding="utf-8"))
    scorer.score(source.tokenizer.sample(pairs))
    layers.quantize()
    return_freed_memory()
    keep_batch_memory()
    return scorer


def _make_packed(source: Source, weights: Weights) -> EncoderScorer:
    config = source.checkpoint.config
    head = source.recipe.module_head(weights.device) or make_head(config, weights)
    body = make_body(
        config,
        weights.module(body_name(config)),
        passage_type=source.tokenizer.template.passage_type,
        pooling=head.pooling,
    )
    return EncoderScorer(body, head)


def body_name(config: Config) -> str:
    """The body's module in a packable ``*ForSequenceClassification``."""
    layout = encoder_configs.MODEL_TYPES.get(config["model_type"])
    return "model" if layout is None else layout.body


def make_body(
    config: Config, weights: Weights, *, passage_type: int, pooling: Pooling
) -> EncoderBody:
    """Embeddings and layers of a packable encoder.

    :param weights: the body's own.
    :param passage_type: token type of the passage.
    :param pooling: the head's.
    :raises ValueError: if ``config.json`` has a value that cannot be.
    :raises ModelLoadError: if a tensor is missing or of another shape.
    """
    if encoder_configs.is_packable_modernbert(config):
        return ModernBert(weights, ModernBertConfig.from_config(config), pooling=pooling)
    sizes = BertConfig.from_config(config)
    return Bert(weights, sizes, passage_type=passage_type, pooling=pooling)


def make_head(config: Config, weights: Weights) -> Head:
    """The head of a packable ``*ForSequenceClassification``; errors as :func:`make_body`.

    :param weights: the whole checkpoint's.
    """
    if encoder_configs.is_packable_modernbert(config):
        return modernbert_head(weights, ModernBertConfig.from_config(config))
    return bert_head(weights, BertConfig.from_config(config))


HEAD_MODULES = ("Dense", "LayerNorm", "Normalize", "Dropout")


def read_head_module(
    checkpoint: Checkpoint, kind: str, folder: str, reads: str, width: Any
) -> tuple[HeadModule | None, str, Any]:
    """Read the config of one of sentence-transformers' modules behind a pooling.

    :param kind: one of ``HEAD_MODULES``.
    :param folder: of its files.
    :param reads: name of the states that the module before it has made.
    :param width: their size; None where it is not known.
    :returns: the module, or None for one that does nothing; name and size of the states it makes.
    :raises ModelLoadError: if it does not fit what it reads.
    :raises UnsupportedModelError: if it reads or makes something else.
    """
    file = f"{checkpoint.folder.name}/{folder}/config.json"
    if kind == "Dropout":
        return None, reads, width
    # sentence-transformers writes none for a module without settings
    config = checkpoint.read_json(f"{folder}/config.json")
    made = _made(config, reads, file)
    if kind == "Normalize":
        return HeadModule(kind, lambda _: normalize), made, width
    if kind == "LayerNorm":
        size = _size(config, "dimension", width, file)

        def load_norm(device: torch.device) -> States:
            weights = _module_weights(checkpoint, folder, device)
            return weights.norm("norm", size, _LAYER_NORM_EPS).__call__

        return HeadModule(f"LayerNorm({size})", load_norm), made, width
    inputs, outputs = (
        _size(config, name, expected, file)
        for name, expected in (("in_features", width), ("out_features", None))
    )
    path = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = activation_name(path, ACTIVATIONS, file)

    def load_dense(device: torch.device) -> States:
        weights = _module_weights(checkpoint, folder, device)
        return _dense(config, inputs, outputs, ACTIVATIONS[activation], weights)

    return HeadModule(f"Dense({inputs}, {outputs}, {activation})", load_dense), made, outputs


def _module_weights(checkpoint: Checkpoint, folder: str, device: torch.device) -> Weights:
    checkpoint.require_safetensors(folder)
    return Weights(WeightFiles(checkpoint.folder / folder), device, torch.float32)


def _dense(
    config: Config, inputs: int, outputs: int, activation: States, weights: Weights
) -> States:
    """A linear layer, an activation and, where it has one, a residual sum."""
    weight = weights.read("linear.weight", outputs, inputs)
    bias = weights.read("linear.bias", outputs) if config.get("bias", True) else None
    if not config.get("use_residual", False):
        return lambda states: activation(linear(states, weight, bias))
    if inputs == outputs:
        return lambda states: activation(linear(states, weight, bias)) + states
    residual = weights.read("residual.weight", outputs, inputs)
    return lambda states: activation(linear(states, weight, bias)) + linear(states, residual)


def _made(config: dict[str, Any], reads: str, file: str) -> str:
    """Name of the states that a module makes of those named ``reads``."""
    name = config.get("module_input_name", "sentence_embedding")
    if name != reads:
        raise UnsupportedModelError(f"{file} reads {name!r}, and the module before makes {reads!r}")
    return str(config.get("module_output_name") or name)


def _size(config: dict[str, Any], name: str, expected: int | None, file: str) -> int:
    size = config.get(name)
    if not isinstance(size, int) or size < 1 or expected not in (None, size):
        what = "a positive int" if expected is None else f"{expected}, as many as it reads"
        raise ModelLoadError(f"{file}: {name} must be {what}, got {size!r}")
    return size
