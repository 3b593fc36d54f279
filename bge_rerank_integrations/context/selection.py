"""Which documents are kept, and what of them: one plain function a step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

from ..checks import is_finite, is_int
from ..errors import ConfigurationError, NonFiniteScoreError, ScoringError
from ..highlighting import Span, sentences
from ..ranking import Ranking, blend_ranks
from .duplicates import without_duplicates

CountTokens = Callable[[str], int]

# of the score that sentences are cut by; measured by benchmarks/context.py
_NEIGHBOR_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that is kept.

    :param index: position among the documents of the call.
    :param score: relevance, on the scale reported; None for a document that was not scored.
    :param text: its own text, without the sentences that were cut.
    :param is_truncated: whether the model did not read it to its end.
    """

    index: int
    score: float | None
    text: str
    is_truncated: bool = False


def ranked(ranking: Ranking, texts: Sequence[str], scored: Sequence[int]) -> list[Kept]:
    """The documents of a ranking, best first.

    :param texts: of all documents of the call.
    :param scored: the positions of those that the reranker was given.
    :raises ScoringError: for a ranking of other documents, or with a score that is no number.
    """
    truncated = set(ranking.usage.truncated)
    kept: dict[int, Kept] = {}
    for it in ranking:
        if not is_int(it.index, 0) or it.index >= len(scored) or it.index in kept:
            raise ScoringError(f"a ranking must name each document once, it has {it.index!r}")
        if not is_finite(it.score):
            raise NonFiniteScoreError(it.index, it.score)
        index = scored[it.index]
        # float(): a reranker of the user's own may answer numpy's, which do not serialize
        kept[it.index] = Kept(index, float(it.score), texts[index], it.index in truncated)
    return list(kept.values())


def blended(kept: Sequence[Kept], retrieval_weight: float) -> list[Kept]:
    """All documents by weighted reciprocal ranks, see :func:`~..ranking.blend_ranks`."""
    of = {it.index: it for it in kept}
    return [of[index] for index in blend_ranks(list(of), retrieval_weight)]


def at_most(kept: Iterable[Kept], per_source: int, sources: Sequence[Hashable]) -> list[Kept]:
    """The first ``per_source`` documents of each source.

    :param sources: of all documents of the call; None is no source.
    """
    left: Counter[Hashable] = Counter()
    chosen = []
    for it in kept:
        source = sources[it.index]
        left[source] += 1
        if source is None or left[source] <= per_source:
            chosen.append(it)
    return chosen


def within_budget(
    kept: Iterable[Kept],
    before: Sequence[str],
    max_tokens: int,
    count: CountTokens,
    cut: bool = False,
) -> list[Kept]:
    """The best documents whose tokens fit together.

    One that does not fit is left out, and shorter ones behind it may still fit.

    :param kept: best first.
    :param before: what the language model reads before the text, of all documents of the call.
    :param max_tokens: of all documents that are taken, at most, with what stands before them.
    :param count: tokens of a text.
    :param cut: take the first sentences of a text that does not fit, as many as do.
    :raises ConfigurationError: if ``count`` raises, or returns no int of at least 0.
    """
    taken = []
    left = max_tokens
    for it in kept:
        ahead, text = before[it.index], it.text
        tokens = counted(count, ahead + text)
        if tokens > left and cut:
            text = first_sentences(ahead, text, left, count)
            if not text:
                continue
            tokens = counted(count, ahead + text)
        if tokens <= left:
            taken.append(replace(it, text=text))
            left -= tokens
    return taken


def distinct(kept: Sequence[Kept], share: float, top_n: int | None) -> list[Kept]:
    """The first ``top_n`` documents of which no better one has this share of the text."""
    places = without_duplicates((it.text for it in kept), share)
    return [kept[place] for place in islice(places, min(top_n or len(kept), len(kept)))]


def best(kept: Iterable[Kept], score_threshold: float | None) -> list[Kept]:
    """The documents with at least this score."""
    least = -math.inf if score_threshold is None else score_threshold
    return [it for it in kept if it.score is not None and it.score >= least]


def with_unscored(
    kept: Sequence[Kept], texts: Sequence[str], scored: Sequence[int], top_n: int | None
) -> list[Kept]:
    """Ranked documents, with those that were not scored in the places that they came in.

    These take at most half of the ``top_n`` places, unless fewer documents are ranked.
    """
    unscored = sorted(set(range(len(texts))).difference(scored))
    if top_n is not None:
        unscored = unscored[: max(top_n // 2, top_n - len(kept))]
        kept = kept[: top_n - len(unscored)]
    merged = list(kept)
    for index in unscored:
        merged.insert(index, Kept(index, None, texts[index]))
    return merged


def pruned(
    kept: Sequence[Kept],
    spans: Sequence[Sequence[Span]],
    threshold: float | None,
    share: float | None,
    mark: str,
) -> list[Kept]:
    """Kept documents without the sentences that score low.

    :param spans: the sentences of each one that was scored.
    """
    of = dict(zip([it.index for it in kept if it.score is not None], spans, strict=True))
    return [
        replace(it, text=prune(it.text, of[it.index], threshold, share, mark))
        if it.index in of
        else it
        for it in kept
    ]


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


def first_sentences(before: str, text: str, max_tokens: int, count: CountTokens) -> str:
    """The longest head of whole sentences that fits, empty where the first one is too long."""
    ends = [end for _, end in sentences(text)]
    # a longer head has more tokens; the caller counts again, as a counter may think otherwise
    fitting = bisect_right(
        ends, max_tokens, key=lambda end: counted(count, before + text[:end].rstrip())
    )
    return text[: ends[fitting - 1]].rstrip() if fitting else ""


def counted(count: CountTokens, text: str) -> int:
    """The tokens of a text, by a counter that may be the user's.

    :raises ConfigurationError: if it raises, or returns no int of at least 0.
    """
    try:
        tokens = count(text)
    except Exception as error:
        raise ConfigurationError(
            f"count_tokens must return the tokens of a text, it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not is_int(tokens, 0):
        raise ConfigurationError(f"count_tokens must return an int of at least 0, got {tokens!r}")
    return tokens
