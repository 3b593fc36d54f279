"""From an encoder's hidden states to logits: pooling, and the modules behind it.

A head computes in float32 always: a bfloat16 logit of 9 would be a multiple of 1/16, and ties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import pad

from bge_rerank_integrations.engine.scorers.linear import n_padding_rows
from bge_rerank_integrations.engine.scorers.packing import Packing, positions_of, upload

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


def first_tokens(packing: Packing, count: int = 1) -> tuple[torch.Tensor, Packing]:
    """Row numbers of each sequence's first ``count`` tokens, int64, and their packing.

    A shorter sequence gives all of its tokens. On a CPU, padding rows follow: they are copies of
    the batch's first row.
    """
    device = packing.starts.device
    lengths = [min(length, count) for length in packing.lengths]
    starts = np.cumsum(packing.lengths) - packing.lengths
    rows = np.repeat(starts, lengths) + positions_of(lengths)
    padded = np.pad(rows, (0, n_padding_rows(len(rows), device)))
    return upload(torch.from_numpy(padded), device), Packing.from_lengths(lengths, device)


def mean_pool(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The average of each sequence's tokens, summed in float32.

    :param hidden: states of the packed sequences, `(tokens, hidden)`; rows behind them are dropped.
    :returns: `(n, hidden)` float32; on a CPU, padding rows follow.
    """
    rows = hidden[: sum(packing.lengths)].float()
    # unsafe: nothing is checked on the device, which would be waited for
    means = torch.segment_reduce(rows, "mean", offsets=packing.starts.long(), unsafe=True)
    return pad(means, (0, 0, 0, n_padding_rows(len(means), means.device)))
