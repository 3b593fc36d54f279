"""What goes into one forward pass."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(
    lengths: Sequence[int], max_batch_tokens: int, *, padded: bool = False
) -> list[list[int]]:
    """Split sequences into batches of similar length within a token budget.

    :param lengths: tokens of each sequence.
    :param max_batch_tokens: tokens in one batch; a longer single sequence is a batch of its own.
    :param padded: count what padding to the longest of the batch adds.
    :returns: indices into ``lengths``, longest first, every one exactly once.
    """
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        # longest first: the first of a batch is what all others are padded to
        cost = lengths[batches[-1][0]] if padded and batches else lengths[index]
        if not batches or used + cost > max_batch_tokens:
            batches.append([])
            used, cost = 0, lengths[index]
        batches[-1].append(index)
        used += cost
    return batches
