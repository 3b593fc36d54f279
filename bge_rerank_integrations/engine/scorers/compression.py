"""Token compression of bge-reranker-v2.5-gemma2-lightweight, over packed sequences.

Recipe: FlagEmbedding, `inference/reranker/decoder_only/models/gemma_model.py`. The states of the
query and of the prompt stay; the passage's are replaced by the means of groups of neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bge_rerank_integrations.engine.scorers.packing import upload


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence: its length, and where the passage lies in it."""

    length: int
    start: int
    end: int

    def compressed(self, ratio: int) -> Span:
        """The sequence after groups of ``ratio`` passage tokens became one."""
        groups = -(-(self.end - self.start) // ratio)
        tail = self.length - self.end
        return Span(self.start + groups + tail, self.start, self.start + groups)


def compress(
    hidden: torch.Tensor, spans: Sequence[Span], ratio: int
) -> tuple[torch.Tensor, list[Span]]:
    """Replace each passage's states by means over groups of ``ratio`` neighbors.

    :param hidden: states of the packed sequences, `(tokens, hidden)`; rows behind them are dropped.
    :param spans: the sequences.
    :param ratio: neighbors in a group; a passage's last group may be smaller.
    :returns: states `(fewer tokens, hidden)`, and the sequences as they are now.
    """
    targets: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    shorter: list[Span] = []
    offset = 0
    for span in spans:
        after = span.compressed(ratio)
        passage = span.start + np.arange(span.end - span.start) // ratio
        tail = np.arange(after.end, after.length)
        targets.append(offset + np.concatenate([np.arange(span.start), passage, tail]))
        shorter.append(after)
        offset += after.length
    target_rows = np.concatenate(targets)
    # counted on the host: torch.bincount waits for the device
    counts = np.bincount(target_rows, minlength=offset)
    target = upload(torch.from_numpy(target_rows), hidden.device)
    members = upload(torch.from_numpy(counts), hidden.device).unsqueeze(1)
    # summed in float32: half precision would lose what distinguishes the members of a group
    sums = hidden.new_zeros((offset, hidden.shape[1]), dtype=torch.float32)
    sums.index_add_(0, target, hidden[: len(target)].float())
    return (sums / members).to(hidden.dtype), shorter
