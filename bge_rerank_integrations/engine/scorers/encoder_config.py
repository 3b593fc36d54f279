"""``config.json`` of an encoder that can be packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EncoderLayout:
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


_BERT = EncoderLayout("bert", "bert.pooler.dense", "classifier", False)
_ROBERTA = EncoderLayout("roberta", "classifier.dense", "classifier.out_proj", True)

# whose layers this package knows, by transformers' model_type
MODEL_TYPES = {"bert": _BERT, "roberta": _ROBERTA, "xlm-roberta": _ROBERTA, "camembert": _ROBERTA}

# defaults of transformers' BertConfig and XLMRobertaConfig
_DEFAULTS = {
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
}


def is_packable(config: Mapping[str, Any]) -> bool:
    """Whether this package knows the model's layers."""
    return config.get("model_type") in MODEL_TYPES and config.get("hidden_act", "gelu") == "gelu"


def max_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model of any type has positions for; None if its config does not say."""
    positions = config.get("max_position_embeddings")
    layout = MODEL_TYPES.get(str(config.get("model_type")))
    if positions and layout is not None and layout.positions_after_padding:
        return int(positions - _given(config)["pad_token_id"] - 1)
    return positions


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_DEFAULTS, **config}


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of an encoder, named as in ``config.json``.

    :param layout: where its weights are.
    :param padding_index: the padding token where positions count from it, else None.
    """

    layout: EncoderLayout
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
    def from_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the sizes of a packable encoder.

        :raises ValueError: if they do not fit each other.
        """
        given = _given(config)
        layout = MODEL_TYPES[given["model_type"]]
        encoder = cls(
            layout=layout,
            vocab_size=int(given["vocab_size"]),
            hidden_size=int(given["hidden_size"]),
            intermediate_size=int(given["intermediate_size"]),
            num_hidden_layers=int(given["num_hidden_layers"]),
            num_attention_heads=int(given["num_attention_heads"]),
            max_position_embeddings=int(given["max_position_embeddings"]),
            type_vocab_size=int(given["type_vocab_size"]),
            layer_norm_eps=float(given["layer_norm_eps"]),
            padding_index=int(given["pad_token_id"]) if layout.positions_after_padding else None,
        )
        if encoder.hidden_size % encoder.num_attention_heads:
            raise ValueError(
                f"hidden_size {encoder.hidden_size} is no multiple of num_attention_heads "
                f"{encoder.num_attention_heads}"
            )
        return encoder
