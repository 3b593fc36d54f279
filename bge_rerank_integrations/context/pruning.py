"""A document without the sentences that do not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from ..highlighting import Span

# of the score that sentences are cut by; measured by benchmarks/context.py
_NEIGHBOR_SHARE = 0.1


def prune(
    text: str,
    spans: Sequence[Span],
    threshold: float | None = None,
    share: float | None = None,
    mark: str = "",
) -> str:
    """Cut the sentences that score low; the best one always stays.

    Its neighbors stay unless they score below a tenth of what is cut by: next to the sentence that
    names a question's subject stands, as often, the one that answers with a pronoun.

    What stays keeps its order. Where something is cut, the separator with the most line breaks of
    those that were there remains, so that paragraphs, list items and code blocks stay apart.

    :param spans: the sentences of the text, as ``highlight`` answers them.
    :param threshold: cut sentences that score below this; None cuts none for it.
    :param share: cut sentences that score below this share of the best one's score, too; of a
        score below 0, which a logit may be, there is no share, and none is cut for it.
    :param mark: takes the place of neighboring sentences that are cut, e.g. ``…``.
    :returns: an equal text if nothing is cut.
    """
    pieces: list[str] = []
    kept = zip(staying(spans, threshold, share), spans, strict=True)
    for stays, group in groupby(kept, lambda each: each[0]):
        neighbors = [span for _, span in group]
        if stays:
            pieces.append(text[neighbors[0].start : neighbors[-1].end])
        elif mark:
            pieces.append(mark + _separator(text, neighbors[-1]))
        elif pieces:
            separators = [_separator(text, span) for span in neighbors]
            before = pieces[-1].rstrip()
            if neighbors[-1] is not spans[-1]:
                separators.append(pieces[-1][len(before) :])
            else:
                separators = separators[-1:]
            pieces[-1] = before + max(separators, key=lambda separator: separator.count("\n"))
    return "".join(pieces)


def staying(
    spans: Sequence[Span], threshold: float | None = None, share: float | None = None
) -> list[bool]:
    """Whether each sentence stays, by the rules of :func:`prune`."""
    if not spans:
        return []
    best = max(range(len(spans)), key=lambda index: spans[index].score)
    least = -math.inf if threshold is None else threshold
    if share is not None and spans[best].score >= 0:
        least = max(least, share * spans[best].score)
    stays = [span.score >= least for span in spans]
    stays[best] = True
    for neighbor in (best - 1, best + 1):
        # a tenth of a negative logit would be more than the logit
        if 0 <= neighbor < len(spans) and spans[neighbor].score >= _NEIGHBOR_SHARE * least >= 0:
            stays[neighbor] = True
    return stays


def _separator(text: str, span: Span) -> str:
    """The white space at the end of a sentence."""
    sentence = text[span.start : span.end]
    return sentence[len(sentence.rstrip()) :]
