"""Encoders → scorers: packed where the layers are known, else padded by transformers.

Body and head are made apart, so that a body may get another head than its own class's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    scorer.score(source.tokenizer.sample(SAMPLE_PAIRS))
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


SAMPLE_PAIRS: Sequence[tuple[str, str]] = (
    (
        "how long do cooked beans keep in the refrigerator?",
        "Cooked beans keep for three to five days in a closed container in the refrigerator, and "
        "for about six months in the freezer. Let them cool before you put them away.",
    ),
    (
        "how long do cooked beans keep in the refrigerator?",
        "The committee met on 14 March 2019 and elected Maria Oyelaran as its chair by 11 votes "
        "to 4; the minutes were published in May.",
    ),
    (
        "Aspirin lowers the risk of colorectal cancer",
        "Background: Observational studies suggest that regular aspirin use is associated with a "
        "reduced incidence of colorectal adenomas (RR 0.72, 95% CI 0.61-0.85). Methods: We "
        "followed 1,121 patients for three years. Results: Low-dose aspirin (81 mg/day) reduced "
        "the risk of advanced neoplasia, whereas 325 mg/day had no significant effect (P = 0.04 "
        "and P = 0.38). Conclusions: Low doses may have a moderate chemopreventive effect.",
    ),
    (
        "what does the with statement do in Python?",
        "with open(path, encoding='utf-8') as file:\n    for line in file:\n        print(line)\n\n"
        "The context manager's __exit__() method is called when the block ends, even if an "
        "exception was raised in it.",
    ),
    (
        "who wrote the opera in which a toymaker's doll sings?",
        "The Tales of Hoffmann is an opera by Jacques Offenbach; its libretto is by Jules Barbier.",
    ),
    (
        "Wann wurde die Brücke über den Fluss gebaut?",
        "Die steinerne Brücke wurde zwischen 1135 und 1146 errichtet und verband die Altstadt mit "
        "dem Ufer gegenüber; über Jahrhunderte war sie der einzige Übergang weit und breit.",
    ),
    (
        "长城有多长？",
        "根据测量，明代长城的总长度约为八千八百五十一公里，其中人工墙体约六千二百公里。",
    ),
    (
        "¿Qué países atraviesa el río más largo de la región?",
        "El río nace en las montañas del sur, atraviesa cuatro países y desemboca en un delta.",
    ),
    ("returns policy", "RETURNS: 30 days, unopened, with receipt. No refund on sale items (*)."),
    ("ما هي عاصمة البلاد؟", "العاصمة هي أكبر مدينة في البلاد، وتقع على ضفاف النهر."),
)
