"""``config.json`` of an encoder of the BERT and RoBERTa families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bge_rerank_integrations.engine.scorers.config_values import (
    read_heads,
    read_positive,
    read_size,
)


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

# as transformers' XLMRobertaConfig
_PADDING_ID = 1


def is_packable(config: Mapping[str, Any]) -> bool:
    """Whether this package knows the model's layers."""
    return config.get("model_type") in MODEL_TYPES and config.get("hidden_act", "gelu") == "gelu"


def max_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model of any type has positions for; None if its config does not say."""
    positions = config.get("max_position_embeddings")
    layout = MODEL_TYPES.get(str(config.get("model_type")))
    if positions and layout is not None and layout.positions_after_padding:
        return int(positions - config.get("pad_token_id", _PADDING_ID) - 1)
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
        hidden_size = read_size(config, "hidden_size")
        padding_id = int(config.get("pad_token_id", _PADDING_ID))
        return cls(
            layout=layout,
            vocab_size=read_size(config, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=read_size(config, "intermediate_size"),
            num_hidden_layers=read_size(config, "num_hidden_layers", 12),
            num_attention_heads=read_heads(config, hidden_size, 12),
            max_position_embeddings=read_size(config, "max_position_embeddings"),
            type_vocab_size=read_size(config, "type_vocab_size", 2),
            layer_norm_eps=read_positive(config, "layer_norm_eps", 1e-12),
            padding_index=padding_id if layout.positions_after_padding else None,
        )
