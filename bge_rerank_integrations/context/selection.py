"""Which documents of a ranking reach the language model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from bge_rerank_integrations.context.duplicates import without_duplicates
from bge_rerank_integrations.ranking import RankedDocument, Ranking


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

    def of(self, ranking: Ranking, texts: Sequence[str]) -> list[RankedDocument]:
        """The documents that are kept, best first.

        :param ranking: the best :attr:`ranked` documents.
        :param texts: of all documents that were ranked.
        """
        places: Iterable[int] = range(len(ranking))
        if self.drop_duplicates is not None:
            ordered = (texts[document.index] for document in ranking)
            places = without_duplicates(ordered, self.drop_duplicates)
        return [ranking[place] for place in islice(places, self.top_n)]
