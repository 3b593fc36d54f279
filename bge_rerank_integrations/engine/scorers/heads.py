"""From an encoder's hidden states to logits: pooling, and the modules behind it.

A head computes in float32 always: a bfloat16 logit of 9 would be a multiple of 1/16, and ties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import pad

from bge_rerank_integrations.engine.scorers.encoder_config import EncoderConfig
from bge_rerank_integrations.engine.scorers.linear import n_padding_rows
from bge_rerank_integrations.engine.scorers.packing import Packing
from bge_rerank_integrations.engine.scorers.weights import Weights

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, slots=True)
class Head:
    """What follows an encoder's last layer.

    :param pooling: "cls" reads each sequence's first token, "mean" the average of all its tokens.
    :param modules: applied one after the other to pooled states, `(n, hidden)` → logits `(n, 1)`.
    """

    pooling: Pooling
    modules: tuple[Callable[[torch.Tensor], torch.Tensor], ...]

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """Float32 logits `(n, 1)` of pooled states `(n, hidden)` in any precision."""
        states = pooled.float()
        for module in self.modules:
            states = module(states)
        return states


def classification_head(weights: Weights, config: EncoderConfig) -> Head:
    """The head of BERT's and RoBERTa's sequence classification: a layer, tanh, another layer.

    :param weights: the whole checkpoint's.
    """
    hidden, layout = config.hidden_size, config.layout
    weights = weights.in_float32()
    dense = weights.linear(hidden, hidden, layout.dense)
    return Head("cls", (dense, torch.tanh, weights.linear(hidden, 1, layout.logits)))


def mean_pool(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The average of each sequence's tokens, summed in float32.

    :param hidden: states of the packed sequences, `(tokens, hidden)`; rows behind them are dropped.
    :returns: `(n, hidden)` float32; on a CPU, padding rows follow.
    """
    rows = hidden[: sum(packing.lengths)].float()
    means = torch.segment_reduce(rows, "mean", offsets=packing.starts.long())
    return pad(means, (0, 0, 0, n_padding_rows(len(means), means.device)))
