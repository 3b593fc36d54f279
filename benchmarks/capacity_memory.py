"""Memory of the six BGE rerankers on a GPU, computed from their released configurations.

Parameters are counted on models without storage; nothing is loaded and nothing is measured::

    python -m benchmarks.capacity_memory
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    XLMRobertaConfig,
)

from benchmarks.shapes import BGE_RERANKERS, SHAPES
from bge_rerank_integrations.engine.loading.devices import default_batch_tokens

_HALF = 2  # bytes
CONFIGS = {f"BAAI/{name}": SHAPES[name] for name in BGE_RERANKERS}
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


def _parameters(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        if isinstance(config, XLMRobertaConfig):
            model = AutoModelForSequenceClassification.from_config(config)
        else:
            # Gemma's head is its embedding
            model = AutoModel.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _values_a_token(config: PreTrainedConfig) -> int:
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
