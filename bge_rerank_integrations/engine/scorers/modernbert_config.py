"""``config.json`` of a ModernBERT, as transformers 4 and 5 write it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bge_rerank_integrations.engine.scorers.config_values import (
    read_heads,
    read_positive,
    read_size,
    read_switch,
)
from bge_rerank_integrations.engine.scorers.heads import Pooling

LayerType = Literal["full_attention", "sliding_attention"]

# where transformers 4 kept theta, and transformers' default
_THETA: Mapping[LayerType, tuple[str, float]] = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
_ACTIVATIONS = ("hidden_activation", "classifier_activation")


def is_packable(config: Mapping[str, Any]) -> bool:
    """Whether this package knows the model's layers: GELU, and RoPE without any scaling."""
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
