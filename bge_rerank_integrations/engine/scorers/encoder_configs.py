"""``config.json`` of the encoders that are packed: BERT's and RoBERTa's families, and ModernBERT.

A value that cannot be what it should is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .heads import Pooling

LayerType = Literal["full_attention", "sliding_attention"]

# where transformers 4 kept theta, and transformers' default
_THETA: Mapping[LayerType, tuple[str, float]] = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
_ACTIVATIONS = ("hidden_activation", "classifier_activation")


@dataclass(frozen=True, slots=True)
class BertLayout:
    """Where a model type keeps its weights, and how it counts positions.

    :param body: name of the module that holds embeddings and layers.
    :param dense: the head's hidden layer, with tanh behind it.
    :param logits: the head's last layer.
    :param positions_after_padding: positions count from ``pad_token_id + 1`` (fairseq's
        convention), not from 0.
    """

    body: str
    dense: str
    logits: str
    positions_after_padding: bool


_BERT = BertLayout("bert", "bert.pooler.dense", "classifier", False)
_ROBERTA = BertLayout("roberta", "classifier.dense", "classifier.out_proj", True)

# whose layers this package knows, by transformers' model_type; of flash see `FlashWeightFiles`
MODEL_TYPES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-flash": _ROBERTA,
    "camembert": _ROBERTA,
}

# types that transformers runs whose positions count from the padding token, as RoBERTa's do
_AFTER_PADDING = frozenset({
    "data2vec-text", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "mpnet",
    "roberta-prelayernorm", "xlm-roberta-xl", "xmod",
})  # fmt: skip
# as transformers' XLMRobertaConfig and BertConfig
_PADDING_ID = 1
_POSITIONS = 512
_VOCABULARY = 30_522


def is_packable(config: Mapping[str, Any]) -> bool:
    """Whether this package knows the model's layers."""
    return is_packable_modernbert(config) or is_packable_bert(config)


def is_packable_bert(config: Mapping[str, Any]) -> bool:
    """Whether this package knows the layers, which are BERT's or RoBERTa's."""
    return config.get("model_type") in MODEL_TYPES and config.get("hidden_act", "gelu") == "gelu"


def has_types(config: Mapping[str, Any]) -> bool:
    """Whether a model of any type has embeddings for token types; true where nothing says it."""
    is_decoder = "num_key_value_heads" in config and "type_vocab_size" not in config
    return not is_decoder and int(config.get("type_vocab_size", 2)) > 1


def max_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model of any type has positions for; None if its config does not say."""
    kind = str(config.get("model_type"))
    layout = MODEL_TYPES.get(kind)
    default = _POSITIONS if layout is not None else None
    positions: int | None = config.get("max_position_embeddings", default)
    after_padding = layout.positions_after_padding if layout else kind in _AFTER_PADDING
    if positions and after_padding:
        padding = config.get("pad_token_id", _PADDING_ID)
        return positions - (_PADDING_ID if padding is None else padding) - 1
    return positions


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of an encoder, named as in ``config.json``.

    :param layout: where its weights are.
    :param padding_index: the padding token where positions count from it, else None.
    """

    layout: BertLayout
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    padding_index: int | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read the sizes of a packable encoder; defaults are transformers'.

        :raises ValueError: if one is missing or no size, or if they do not fit each other.
        """
        layout = MODEL_TYPES[config["model_type"]]
        hidden_size = read_size(config, "hidden_size", 768)
        vocabulary = 50_265 if config["model_type"] == "roberta" else _VOCABULARY
        padding_id = config.get("pad_token_id", _PADDING_ID)
        if layout.positions_after_padding and not isinstance(padding_id, int):
            raise ValueError(
                "config.json: pad_token_id must be a token's number, as positions count from it, "
                f"got {padding_id!r:.80}"
            )
        return cls(
            layout=layout,
            vocab_size=read_size(config, "vocab_size", vocabulary),
            hidden_size=hidden_size,
            intermediate_size=read_size(config, "intermediate_size", 3072),
            num_hidden_layers=read_size(config, "num_hidden_layers", 12),
            num_attention_heads=read_heads(config, hidden_size, 12),
            max_position_embeddings=read_size(config, "max_position_embeddings", _POSITIONS),
            type_vocab_size=read_size(config, "type_vocab_size", 2),
            layer_norm_eps=read_positive(config, "layer_norm_eps", 1e-12),
            padding_index=padding_id if layout.positions_after_padding else None,
        )


def is_packable_modernbert(config: Mapping[str, Any]) -> bool:
    """Whether this package knows the layers, which are ModernBERT's: GELU, RoPE unscaled."""
    if config.get("model_type") != "modernbert" or config.get("rope_scaling") is not None:
        return False
    ropes = [_rope(config, kind) for kind in get_args(LayerType)]
    kinds = {rope.get("rope_type", rope.get("type", "default")) for rope in ropes}
    return kinds == {"default"} and all(config.get(a, "gelu") == "gelu" for a in _ACTIVATIONS)


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    """Sizes of a ModernBERT, named as in ``config.json``.

    :param layer_types: what each layer attends to.
    :param rope_thetas: base of the rotary frequencies in each type of layer.
    :param window: tokens on either side that a local layer sees: half of ``local_attention``.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    layer_types: tuple[LayerType, ...]
    rope_thetas: Mapping[LayerType, float]
    window: int
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    classifier_bias: bool
    classifier_pooling: Pooling

    @property
    def head_dim(self) -> int:
        """Dimensions of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def scale(self) -> float:
        """Factor on attention's dot products."""
        return 1 / math.sqrt(self.head_dim)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModernBertConfig:
        """Read the sizes of a packable ModernBERT; defaults are transformers'.

        :raises ValueError: if one is missing or no size, or if they do not fit each other.
        """
        hidden_size = read_size(config, "hidden_size", 768)
        heads = read_heads(config, hidden_size, 12)
        if hidden_size // heads % 2:
            raise ValueError(
                f"config.json: hidden_size / num_attention_heads must be even, got "
                f"{hidden_size} / {heads}"
            )
        pooling = config.get("classifier_pooling", "cls")
        if pooling not in get_args(Pooling):
            raise ValueError(
                f"config.json: classifier_pooling must be 'cls' or 'mean', got {pooling!r:.80}"
            )
        return cls(
            vocab_size=read_size(config, "vocab_size", 50_368),
            hidden_size=hidden_size,
            intermediate_size=read_size(config, "intermediate_size", 1152),
            num_attention_heads=heads,
            layer_types=_layer_types(config),
            rope_thetas={kind: _theta(config, kind) for kind in get_args(LayerType)},
            window=read_size(config, "local_attention", 128) // 2,
            norm_eps=read_positive(config, "norm_eps", 1e-5),
            norm_bias=read_switch(config, "norm_bias"),
            attention_bias=read_switch(config, "attention_bias"),
            mlp_bias=read_switch(config, "mlp_bias"),
            classifier_bias=read_switch(config, "classifier_bias"),
            classifier_pooling=pooling,
        )


def _rope(config: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What transformers 5 says of a layer type's rotary embeddings; empty if nothing.

    :raises ValueError: if it is no object.
    """
    ropes = config.get("rope_parameters") or {}
    rope = (isinstance(ropes, Mapping) and ropes.get(kind)) or {}
    if not isinstance(ropes, Mapping) or not isinstance(rope, Mapping):
        raise ValueError(f"config.json: rope_parameters must be an object, got {ropes!r:.80}")
    return rope


def _theta(config: Mapping[str, Any], kind: LayerType) -> float:
    rope, (name, default) = _rope(config, kind), _THETA[kind]
    if "rope_theta" in rope:
        return read_positive(rope, "rope_theta")
    return read_positive(config, name, default)


def _layer_types(config: Mapping[str, Any]) -> tuple[LayerType, ...]:
    layers = read_size(config, "num_hidden_layers", 22)
    types = config.get("layer_types")
    if types is None:
        every = read_size(config, "global_attn_every_n_layers", 3)
        return tuple("sliding_attention" if n % every else "full_attention" for n in range(layers))
    is_complete = isinstance(types, list) and len(types) == layers
    if not is_complete or any(kind not in get_args(LayerType) for kind in types):
        raise ValueError(
            f"config.json: layer_types must name {layers} of {', '.join(_THETA)}, got {types!r:.80}"
        )
    return tuple(types)


def read_size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A positive integer.

    :param default: what transformers takes where the file says nothing; None if it must say it.
    :raises ValueError: if it is anything else.
    """
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {name} must be a positive integer, got {value!r:.80}")
    return value


def read_positive(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A positive, finite number; parameters as in :func:`read_size`.

    :raises ValueError: if it is anything else.
    """
    value = config.get(name, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise ValueError(f"config.json: {name} must be a positive number, got {value!r:.80}")
    return float(value)


def read_switch(config: Mapping[str, Any], name: str) -> bool:
    """A boolean, false where the file says nothing.

    :raises ValueError: if it is anything else.
    """
    value = config.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {name} must be true or false, got {value!r:.80}")
    return value


def read_heads(config: Mapping[str, Any], hidden_size: int, default: int) -> int:
    """``num_attention_heads``, which must divide the hidden size.

    :raises ValueError: if it does not.
    """
    heads = read_size(config, "num_attention_heads", default)
    if hidden_size % heads:
        raise ValueError(
            f"config.json: hidden_size {hidden_size} is no multiple of num_attention_heads {heads}"
        )
    return heads
