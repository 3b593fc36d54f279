"""Configurations of released rerankers, without their weights; and the work that a pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from transformers import (
    Gemma2Config,
    GemmaConfig,
    GraniteConfig,
    ModernBertConfig,
    PreTrainedConfig,
    Qwen3Config,
    XLMRobertaConfig,
)

_XLMR: dict[str, Any] = {"vocab_size": 250_002, "type_vocab_size": 1, "num_labels": 1}
_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

# what the config.json of each model says; MiniCPM's layers have the shapes of Granite's
SHAPES: dict[str, PreTrainedConfig] = {
    "bge-reranker-base": XLMRobertaConfig(**_XLMR, max_position_embeddings=514),
    "bge-reranker-large": XLMRobertaConfig(**_XLMR, **_LARGE, max_position_embeddings=514),
    "bge-reranker-v2-m3": XLMRobertaConfig(**_XLMR, **_LARGE, max_position_embeddings=8194),
    "bge-reranker-v2-gemma": GemmaConfig(
        vocab_size=256_000,
        hidden_size=2048,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        intermediate_size=16_384,
    ),
    "bge-reranker-v2-minicpm-layerwise": GraniteConfig(
        vocab_size=122_753,
        hidden_size=2304,
        num_hidden_layers=40,
        num_attention_heads=36,
        num_key_value_heads=36,
        intermediate_size=5760,
    ),
    "bge-reranker-v2.5-gemma2-lightweight": Gemma2Config(
        vocab_size=256_000,
        hidden_size=3584,
        num_hidden_layers=42,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        intermediate_size=14_336,
    ),
    "Qwen3-Reranker-0.6B": Qwen3Config(
        vocab_size=151_669,
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    ),
    # transformers' defaults are those of the base size
    "gte-reranker-modernbert-base": ModernBertConfig(classifier_pooling="mean", num_labels=1),
    "ettin-reranker-32m": ModernBertConfig(
        hidden_size=384,
        intermediate_size=576,
        num_hidden_layers=10,
        num_attention_heads=6,
        num_labels=1,
    ),
}
BGE_RERANKERS = tuple(name for name in SHAPES if name.startswith("bge-"))

# of a model that runs in milliseconds anywhere
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def shape_of(name: str, n_tokens: int, *, tiny: bool = False) -> PreTrainedConfig:
    """A reranker's configuration, for a tokenizer that need not be its own.

    :param name: one of ``SHAPES``.
    :param n_tokens: of the tokenizer's vocabulary; the embeddings have a row for each.
    :param tiny: a few small layers of the same kind.
    """
    config = deepcopy(SHAPES[name])
    for key, size in _TINY.items() if tiny else ():
        if hasattr(config, key):
            setattr(config, key, size)
    if tiny and getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    # states stay of a size from layer to layer, so that logits of different texts differ
    config.initializer_range = config.hidden_size**-0.5
    config.vocab_size = n_tokens if tiny else max(config.vocab_size, n_tokens)
    if isinstance(config, XLMRobertaConfig):
        # a tokenizer of BERT's kind gives the passage a type of its own
        config.type_vocab_size = 2
    for key in ("pad", "bos", "eos", "cls", "sep"):
        # the defaults may lie beyond the vocabulary, and change no figure
        setattr(config, f"{key}_token_id", 1)
    return config


def forward_flops(config: PreTrainedConfig, lengths: Sequence[int]) -> float:
    """Floating point operations of a padding-free pass: products with weights and attention.

    What a scorer leaves out counts: of the last layer, all but the row that a head reads.

    :param lengths: tokens of each sequence.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    is_encoder = isinstance(config, XLMRobertaConfig)
    # query and output, key and value, and the feed-forward, which is gated in all but BERT's kind
    weights = 2 * hidden * head_dim * (heads + key_heads)
    weights += (2 if is_encoder else 3) * hidden * config.intermediate_size
    flops = 0.0
    for n in lengths:
        flops += 2.0 * layers * weights * n
        for layer in range(layers):
            flops += 4.0 * heads * head_dim * n * _seen(config, layer, n)
    return flops


def _seen(config: PreTrainedConfig, layer: int, n: int) -> float:
    """Tokens that each of ``n`` tokens attends to in a layer, on average."""
    if isinstance(config, XLMRobertaConfig):
        return n
    if isinstance(config, ModernBertConfig):
        is_local = config.layer_types[layer] == "sliding_attention"
        return min(n, config.local_attention + 1) if is_local else n
    return (n + 1) / 2
