"""Which sentences of documents answer a query: sentences in, scored spans out."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from bge_rerank_integrations.context.sentences import sentences
from bge_rerank_integrations.errors import InputError, NonFiniteScoreError, ScoringError
from bge_rerank_integrations.inputs import check_documents
from bge_rerank_integrations.ranking import Scores

# of a long sentence before, the end is enough; a whole one may fill the model's length
_MOST_CHARACTERS_BEFORE = 400


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence of a document.

    :param start: offset of its first character in the document.
    :param end: offset after its last character, white space behind it included.
    :param score: relevance of the sentence, on the scale that the reranker was asked for.
    """

    start: int
    end: int
    score: float


@runtime_checkable
class Highlighter(Protocol):
    """A reranker that scores sentences: an engine, a remote client or a test's fake."""

    def highlight(self, query: str, documents: Sequence[str]) -> list[list[Span]]:
        """Score every sentence of documents against the query."""
        ...

    async def ahighlight(self, query: str, documents: Sequence[str]) -> list[list[Span]]:
        """Highlight like :meth:`highlight`, without blocking the event loop."""
        ...


class _TextScorer(Protocol):
    """What highlights: an engine, or a remote client."""

    @property
    def score(self) -> Callable[..., Scores]: ...

    @property
    def ascore(self) -> Callable[..., Awaitable[Scores]]: ...


class Highlighting:
    """Adds ``highlight`` and ``ahighlight`` to a reranker that has ``score`` and ``ascore``.

    Windows of two neighboring sentences are scored: those of all documents together, equal ones
    once. The score of a sentence is the mean over its two windows; the first and the last one are
    alone in one of theirs. The neighbor often names what a pronoun means, and next to an answer a
    sentence has only one window that scores high. The mean is geometric, and arithmetic where a
    score is outside 0 to 1. ``benchmarks/context.py`` compares this with simpler scores.
    """

    def highlight(
        self: _TextScorer, query: str, documents: Iterable[str], **options: Any
    ) -> list[list[Span]]:
        """Score every sentence of documents against the query.

        :param options: those of ``score``, which also lists what is raised.
        :returns: for each document its sentences in text order. They cover the document without
            overlap; an empty document has none.
        """
        windows = SentenceWindows(documents)
        with windows.errors_of_documents():
            return windows.spans(self.score(query, windows.texts, **options))

    async def ahighlight(
        self: _TextScorer, query: str, documents: Iterable[str], **options: Any
    ) -> list[list[Span]]:
        """Highlight like :meth:`highlight`, without blocking the event loop."""
        windows = SentenceWindows(documents)
        with windows.errors_of_documents():
            return windows.spans(await self.ascore(query, windows.texts, **options))


class SentenceWindows:
    """The sentences of a call's documents, in windows of two.

    :ivar texts: the windows, document after document.
    :ivar sentence_count: number of sentences in all documents.
    :raises InputError: for a document that is not a string or not valid Unicode.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        checked = check_documents(documents)
        self._sentences = [sentences(document) for document in checked]
        self.sentence_count = sum(map(len, self._sentences))
        windows = [
            list(_windows(document, ranges))
            for document, ranges in zip(checked, self._sentences, strict=True)
        ]
        self.texts = [text for texts in windows for text in texts]
        self._documents = [index for index, texts in enumerate(windows) for _ in texts]

    def spans(self, scores: Iterable[float]) -> list[list[Span]]:
        """The sentences with their scores, by document."""
        given = list(map(float, scores))
        mean = _geometric_mean if all(0 <= score <= 1 for score in given) else _mean
        of_documents: list[list[float]] = [[] for _ in self._sentences]
        for index, score in zip(self._documents, given, strict=True):
            of_documents[index].append(score)
        return [
            [
                Span(start, end, mean(one, other))
                for (start, end), (one, other) in zip(ranges, pairwise(its), strict=True)
            ]
            for ranges, its in zip(self._sentences, of_documents, strict=True)
        ]

    @contextmanager
    def errors_of_documents(self) -> Iterator[None]:
        """Errors in here name a document, where they would name one of the windows."""
        try:
            yield
        except (InputError, ScoringError) as error:
            if error.index is None:
                raise
            index = self._documents[error.index]
            if isinstance(error, NonFiniteScoreError):
                raise NonFiniteScoreError(index, error.value) from error
            kind = InputError if isinstance(error, InputError) else ScoringError
            raise kind(f"document {index}, in one of its sentences: {error}", index) from error


def _windows(document: str, ranges: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Each sentence with the one before it, and the last one alone."""
    first = 0
    for start, end in ranges:
        yield document[first:end].strip()
        first = max(start, end - _MOST_CHARACTERS_BEFORE)
    if ranges:
        start, end = ranges[-1]
        yield document[start:end].strip()


def _geometric_mean(one: float, other: float) -> float:
    return math.sqrt(one * other)


def _mean(one: float, other: float) -> float:
    return (one + other) / 2
