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
