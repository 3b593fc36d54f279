"""Which documents are kept, and what of them: one plain function a step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..checks import is_finite, is_int
from ..errors import NonFiniteScoreError, ScoringError
from ..highlighting import Span
from ..ranking import Ranking, blend_ranks
from .budget import CountTokens, fit_budget
from .duplicates import without_duplicates
from .pruning import prune


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
    kept: Sequence[Kept], before: Sequence[str], max_tokens: int, count: CountTokens, cut: bool
) -> list[Kept]:
    """The best documents whose tokens fit together, see :func:`~.budget.fit_budget`.

    :param before: what the language model reads before the text, of all documents of the call.
    """
    texts = ((before[it.index], it.text) for it in kept)
    fitting = fit_budget(texts, max_tokens, count, cut=cut)
    return [replace(kept[place], text=text) for place, text in fitting]


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
