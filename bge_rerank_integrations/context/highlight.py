"""Which sentences of documents answer a query: sentences in, scored spans out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
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

    A sentence is scored in a window: with the sentence before it, which often names what a pronoun
    means. All windows of a call are scored together; equal ones once.
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
    """The sentences of a call's documents, each in its window.

    :ivar texts: the windows, document after document.
    :raises InputError: for a document that is not a string or not valid Unicode.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        checked = check_documents(documents)
        self._sentences = [sentences(document) for document in checked]
        self.texts = [
            window
            for document, ranges in zip(checked, self._sentences, strict=True)
            for window in _windows(document, ranges)
        ]

    def spans(self, scores: Iterable[float]) -> list[list[Span]]:
        """The sentences with their scores, by document."""
        following = iter(scores)
        return [
            [Span(start, end, float(next(following))) for start, end in ranges]
            for ranges in self._sentences
        ]

    @contextmanager
    def errors_of_documents(self) -> Iterator[None]:
        """Errors in here name a document, where they would name one of the windows."""
        try:
            yield
        except (InputError, ScoringError) as error:
            if error.index is None:
                raise
            numbers = [[index] * len(ranges) for index, ranges in enumerate(self._sentences)]
            index = list(chain.from_iterable(numbers))[error.index]
            if isinstance(error, NonFiniteScoreError):
                raise NonFiniteScoreError(index, error.value) from error
            kind = InputError if isinstance(error, InputError) else ScoringError
            raise kind(f"document {index}, in one of its sentences: {error}", index) from error


def _windows(document: str, ranges: Sequence[tuple[int, int]]) -> Iterator[str]:
    first = 0
    for start, end in ranges:
        yield document[first:end].strip()
        first = max(start, end - _MOST_CHARACTERS_BEFORE)
