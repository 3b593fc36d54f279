"""Which of the documents given reach the language model, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from bge_rerank_integrations.context.duplicates import without_duplicates
from bge_rerank_integrations.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that is kept.

    :param index: position in the list given.
    :param score: relevance, on the scale reported; None for a document without text.
    """

    index: int
    score: float | None


class Candidates:
    """The documents of a call: those that are scored, and those without text, which are not.

    :param texts: of the documents themselves.
    :param read: what the reranker reads of each, such as its metadata with its text.
    """

    def __init__(self, texts: Sequence[str], read: Sequence[str]) -> None:
        self._indices = [index for index, text in enumerate(texts) if text.strip()]
        self.texts = [texts[index] for index in self._indices]
        self.read = [read[index] for index in self._indices]
        self._without_text = [index for index, text in enumerate(texts) if not text.strip()]

    def kept(self, ranked: Iterable[Kept], top_n: int | None) -> list[Kept]:
        """Ranked documents, with those without text in their first-stage places.

        :param ranked: by their places among the documents that are scored.
        :param top_n: how many to keep, at most.
        """
        kept = [Kept(self._indices[it.index], it.score) for it in islice(ranked, top_n)]
        for index in self._without_text:
            kept.insert(index, Kept(index, None))
        return kept[:top_n]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is kept of a ranking.

    :param top_n: documents, at most; None keeps all.
    :param drop_duplicates: from which share of shared text on a document is a duplicate of a better
        one; None drops none.
    """

    top_n: int | None
    drop_duplicates: float | None

    @property
    def ranked(self) -> int | None:
        """How many ranked documents are needed; None means all."""
        return self.top_n if self.drop_duplicates is None else None

    def of(self, ranking: Ranking, candidates: Candidates) -> list[Kept]:
        """The documents that are kept, best first.

        :param ranking: the best :attr:`ranked` of the candidates that are scored.
        """
        places: Iterable[int] = range(len(ranking))
        if self.drop_duplicates is not None:
            ordered = (candidates.texts[document.index] for document in ranking)
            places = without_duplicates(ordered, self.drop_duplicates)
        # float(): a reranker of the user's own may answer numpy's, which do not serialize
        ranked = (Kept(ranking[it].index, float(ranking[it].score)) for it in places)
        return candidates.kept(ranked, self.top_n)
