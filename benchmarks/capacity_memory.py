"""Memory of the six BGE rerankers on a GPU, computed from their released configurations.

Parameters are counted on models without storage; nothing is loaded and nothing is measured::

    python -m benchmarks.capacity_memory
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GemmaConfig,
    GraniteConfig,
    PretrainedConfig,
    XLMRobertaConfig,
)

from bge_rerank_integrations.engine.loading.devices import default_batch_tokens

_HALF = 2  # bytes
_XLMR: dict[str, Any] = {"vocab_size": 250_002, "type_vocab_size": 1, "num_labels": 1}
_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

# what the config.json of each model says; MiniCPM's layers have the shapes of Granite's
CONFIGS: dict[str, PretrainedConfig] = {
    "BAAI/bge-reranker-base": XLMRobertaConfig(**_XLMR, max_position_embeddings=514),
    "BAAI/bge-reranker-large": XLMRobertaConfig(**_XLMR, **_LARGE, max_position_embeddings=514),
    "BAAI/bge-reranker-v2-m3": XLMRobertaConfig(**_XLMR, **_LARGE, max_position_embeddings=8194),
    "BAAI/bge-reranker-v2-gemma": GemmaConfig(
        vocab_size=256_000,
        hidden_size=2048,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        intermediate_size=16_384,
    ),
    "BAAI/bge-reranker-v2-minicpm-layerwise": GraniteConfig(
        vocab_size=122_753,
        hidden_size=2304,
        num_hidden_layers=40,
        num_attention_heads=36,
        num_key_value_heads=36,
        intermediate_size=5760,
    ),
    "BAAI/bge-reranker-v2.5-gemma2-lightweight": Gemma2Config(
        vocab_size=256_000,
        hidden_size=3584,
        num_hidden_layers=42,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        intermediate_size=14_336,
    ),
}
# heads of one row: one for each layer from the eighth on
_HEADS = {
    "BAAI/bge-reranker-v2-minicpm-layerwise": 33,
    "BAAI/bge-reranker-v2.5-gemma2-lightweight": 35,
}


@dataclass(frozen=True)
class Memory:
    """Computed memory of one model.

    :param weights_gb: in half precision.
    :param pass_gb: the largest tensors that are alive at one time in a pass, about.
    """

    model: str
    parameters_m: int
    weights_gb: float
    pass_tokens: int
    pass_gb: float


def memory(model: str) -> Memory:
    """Count a model's parameters and the bytes of one pass."""
    config = CONFIGS[model]
    parameters = _parameters(config) + _HEADS.get(model, 0) * config.hidden_size
    tokens = default_batch_tokens(torch.device("cuda"))
    pass_bytes = tokens * _values_a_token(config) * _HALF
    return Memory(
        model,
        round(parameters / 1e6),
        round(parameters * _HALF / 1e9, 2),
        tokens,
        round(pass_bytes / 1e9, 2),
    )


def _parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        if isinstance(config, XLMRobertaConfig):
            model = AutoModelForSequenceClassification.from_config(config)
        else:
            # Gemma's head is its embedding
            model = AutoModel.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _values_a_token(config: PretrainedConfig) -> int:
    """Residual and input; beside them queries, keys, values and output, or the wide layer.

    That one has its products before and after GELU, or gate, up and their product.
    """
    wide = (2 if isinstance(config, XLMRobertaConfig) else 3) * config.intermediate_size
    return int(2 * config.hidden_size + max(4 * config.hidden_size, wide))


def memories() -> Iterator[Memory]:
    """All six."""
    return map(memory, CONFIGS)


def main() -> None:
    """Print one JSON object a line."""
    for each in memories():
        print(json.dumps(asdict(each)))


if __name__ == "__main__":
    main()
