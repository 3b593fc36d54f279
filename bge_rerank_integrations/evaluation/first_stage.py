"""A small first stage: BM25 over passages held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import MissingExtraError
from ..ranking import RankedDocument


class BM25Index:
    """Finds the passages that share words with a query; English stop words do not count.

    :param passages: the texts to search; may be empty.
    :param k1: how much a word's further occurrences in a passage add; 0 and more.
    :param b: how much a passage's length counts against it, from 0 to 1.
    :param stemmed: let "list" find "lists" (Snowball's English stemmer).
    :raises MissingExtraError: if bm25s, or the stemmer that ``stemmed`` needs, is not installed.
    """

    def __init__(
        self, passages: Sequence[str], *, k1: float = 1.5, b: float = 0.75, stemmed: bool = False
    ) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("eval" if stemmed else "cli") from error
        self._stem = _english_stemmer() if stemmed else None
        self._tokenize = bm25s.tokenization.tokenize
        self._size = len(passages)
        self._index = bm25s.BM25(k1=k1, b=b)
        tokens = self._words(passages)
        # bm25s cannot index nothing: no passages, or none with a word in it
        self._searchable = any(tokens)
        if self._searchable:
            self._index.index(tokens, show_progress=False)

    def __len__(self) -> int:
        return self._size

    def search(self, query: str, candidates: int) -> list[RankedDocument]:
        """Find the best passages for ``query``, best first; ties keep the passages' order.

        :param candidates: how many to return, at most; passages that share no word with the query
            are never returned.
        :returns: their positions among the indexed passages, and BM25 scores above 0.
        """
        words = self._words([query])[0]
        if not (self._searchable and words):
            return []
        scores = self._index.get_scores(words)
        found = np.flatnonzero(scores > 0)
        if len(found) > candidates:
            # in a large corpus most passages found are far below: do not sort those
            last = np.partition(scores[found], -candidates)[-candidates]
            found = found[scores[found] >= last]
        order = found[np.argsort(-scores[found], kind="stable")][:candidates]
        return [RankedDocument(int(index), float(scores[index])) for index in order]

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        words: list[list[str]] = self._tokenize(
            list(texts), stopwords="en", stemmer=self._stem, return_ids=False, show_progress=False
        )
        return words


def _english_stemmer() -> Callable[[list[str]], list[str]]:
    try:
        from Stemmer import Stemmer
    except ImportError as error:
        raise MissingExtraError("eval") from error
    stem: Callable[[list[str]], list[str]] = Stemmer("english").stemWords
    return stem
