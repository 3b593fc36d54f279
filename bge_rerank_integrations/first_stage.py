"""A small first stage: BM25 over passages held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bge_rerank_integrations.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage that the first stage found.

    :param index: position among the indexed passages.
    :param score: BM25 score, above 0; it has no upper bound.
    """

    index: int
    score: float


class BM25Index:
    """Finds the passages that share words with a query.

    :param passages: the texts to search; may be empty.
    :raises MissingExtraError: if bm25s is not installed.
    """

    def __init__(self, passages: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("cli") from error
        self._tokenize = bm25s.tokenization.tokenize
        self._size = len(passages)
        self._index = bm25s.BM25()
        tokens = self._words(passages)
        # bm25s cannot index nothing: no passages, or none with a word in it
        self._searchable = any(tokens)
        if self._searchable:
            self._index.index(tokens, show_progress=False)

    def __len__(self) -> int:
        return self._size

    def search(self, query: str, candidates: int) -> list[Hit]:
        """Find the best passages for ``query``, best first; ties keep the passages' order.

        :param candidates: how many to return, at most; passages that share no word with the query
            are never returned.
        """
        words = self._words([query])[0]
        if not (self._searchable and words):
            return []
        scores = self._index.get_scores(words)
        order = np.argsort(-scores, kind="stable")[:candidates]
        return [Hit(int(index), float(scores[index])) for index in order if scores[index] > 0]

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        words: list[list[str]] = self._tokenize(
            list(texts), stopwords="en", return_ids=False, show_progress=False
        )
        return words
