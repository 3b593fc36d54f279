"""A document without the sentences that do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bge_rerank_integrations.context.highlight import Span


def prune(text: str, spans: Sequence[Span], threshold: float, mark: str = "") -> str:
    """Cut the sentences that score below a threshold; the best one always stays.

    What stays keeps its order. Where something is cut, the separator with the most line breaks of
    those that were there remains, so that paragraphs, list items and code blocks stay apart.

    :param spans: the sentences of the text, as ``highlight`` answers them.
    :param threshold: sentences with ``score >= threshold`` stay.
    :param mark: takes the place of neighboring sentences that are cut, e.g. ``…``.
    :returns: an equal text if nothing is cut.
    """
    best = max(spans, key=lambda span: span.score, default=None)
    pieces: list[str] = []
    for stays, group in groupby(spans, lambda span: span is best or span.score >= threshold):
        neighbors = list(group)
        if stays:
            pieces.append(text[neighbors[0].start : neighbors[-1].end])
        elif mark:
            pieces.append(mark + _separator(text, neighbors[-1]))
        elif pieces:
            separators = [_separator(text, span) for span in neighbors]
            kept = pieces[-1].rstrip()
            if neighbors[-1] is not spans[-1]:
                separators.append(pieces[-1][len(kept) :])
            else:
                separators = separators[-1:]
            pieces[-1] = kept + max(separators, key=lambda separator: separator.count("\n"))
    return "".join(pieces)


def _separator(text: str, span: Span) -> str:
    """The white space at the end of a sentence."""
    sentence = text[span.start : span.end]
    return sentence[len(sentence.rstrip()) :]
