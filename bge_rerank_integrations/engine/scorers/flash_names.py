"""XLM-R's weights under the names of flash-attention's BERT, as jina-reranker-v2 stores them.

Names: `convert_roberta_weights_to_flash.py` of jinaai/xlm-roberta-flash-implementation. Query, key
and value are one tensor there; all else has transformers' shapes, and the layers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bge_rerank_integrations.engine.scorers.weights import WeightFiles

# transformers' part of a name, and what stands for it; longer parts before those they end in
_STORED = {
    "embeddings.LayerNorm.": "emb_ln.",
    "encoder.layer.": "encoder.layers.",
    "attention.output.LayerNorm.": "norm1.",
    "attention.output.dense.": "mixer.out_proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.LayerNorm.": "norm2.",
    "output.dense.": "mlp.fc2.",
}
_JOINED = {f"attention.self.{part}.": n for n, part in enumerate(("query", "key", "value"))}


class FlashWeightFiles(WeightFiles):
    """The tensors by transformers' names; errors as in :class:`~.weights.WeightFiles`."""

    def __contains__(self, name: str) -> bool:
        return super().__contains__(_stored_name(name))

    def read(self, name: str, shape: Sequence[int | None]) -> torch.Tensor:
        """One tensor, or its third of a joined one."""
        number = next((n for part, n in _JOINED.items() if part in name), None)
        size = shape[0]
        if number is None or size is None:
            return super().read(_stored_name(name), shape)
        joined = super().read(_stored_name(name), (3 * size, *shape[1:]))
        return joined[number * size : (number + 1) * size]


def _stored_name(name: str) -> str:
    for part, stored in _STORED.items():
        name = name.replace(part, stored)
    for part in _JOINED:
        name = name.replace(part, "mixer.Wqkv.")
    return name
