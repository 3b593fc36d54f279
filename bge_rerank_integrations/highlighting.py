"""Which sentences of documents answer a query: documents in, scored sentences out.

Prose is split by ``sentencex`` (Wikimedia; MIT; wheels of 1.2 MB; releases throughout 2026).
Compared with pysbd 0.3.4, syntok 1.4.4 and blingfire 0.1.8 on prose with abbreviations, on German,
Chinese, Japanese, Arabic and Hindi, on lists, tables and code:

* It returns every character, so that offsets need no search; blingfire and syntok drop some. A
  sentence that is wrapped over lines stays in one piece; pysbd cuts at the end of each line.
* It splits Chinese, Japanese, Arabic and Hindi under English rules, so that no language has to be
  known, and closes their quotes; syntok splits neither Chinese nor Hindi, blingfire no Hindi.
* 3,400 characters take 0.2 ms; with blingfire 0.9 ms, with pysbd 29 ms. The last releases of the
  others are of 2021 and 2022, and blingfire's wheel has 42 MB.

No splitter leaves code, tables and lists readable. They are found before: a fenced or indented code
block and a table are one piece each; headings and list items begin a new one.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import sentencex

from .errors import InputError, ScoringError, relocated
from .inputs import check_documents
from .ranking import Scores

# of a long sentence before, the end is enough; a whole one may fill the model's length
_MOST_CHARACTERS_BEFORE = 400
# at one time: quotes that are not closed take sentencex time quadratic in the length
_MOST_CHARACTERS = 2_000
# rules for abbreviations; the ends of sentences of all scripts are among them
_LANGUAGE = "en"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TABLE_ROW = re.compile(r"[ \t]*\|")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•‣]|\(?\d{1,3}[.)])[ \t]")
_INDENTED = ("    ", "\t")
# "Am 3. Oktober", "1. Install it": a number with a full stop ends no sentence for sure
_ENDS_IN_NUMBER = re.compile(r"(?:^|[\s(])\d{1,2}\.\s+$")


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


class Highlighting:
    """Adds ``highlight`` and ``ahighlight`` to a reranker that has ``score`` and ``ascore``.

    Windows of two neighboring sentences are scored: those of all documents together, equal ones
    once. The score of a sentence is the mean over its two windows; the first and the last one are
    alone in one of theirs. The neighbor often names what a pronoun means, and next to an answer a
    sentence has only one window that scores high. The mean of probabilities is geometric, that
    of logits arithmetic. At a fixed threshold this removes more words than sentences alone do
    where nearly all answers are to be kept, and fewer elsewhere (``benchmarks/README.md``, Short
    contexts).
    """

    score: Callable[..., Scores]
    ascore: Callable[..., Awaitable[Scores]]

    def highlight(self, query: str, documents: Iterable[str], **options: Any) -> list[list[Span]]:
        """Score every sentence of documents against the query.

        :param options: those of ``score``, which also lists what is raised.
        :returns: for each document its sentences in text order. They cover the document without
            overlap; an empty document has none.
        """
        windows = SentenceWindows(documents)
        with windows.errors_of_documents():
            return windows.spans(self.score(query, windows.texts, **options))

    async def ahighlight(
        self, query: str, documents: Iterable[str], **options: Any
    ) -> list[list[Span]]:
        """Highlight like :meth:`highlight`, without blocking the event loop."""
        checked = check_documents(documents)
        # in a thread: to split a megabyte of text takes about a second
        windows = await asyncio.to_thread(SentenceWindows, checked)
        with windows.errors_of_documents():
            scores = await self.ascore(query, windows.texts, **options)
            return await asyncio.to_thread(windows.spans, scores)


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

    def spans(self, scores: Scores) -> list[list[Span]]:
        """The sentences with their scores, by document.

        :param scores: of the windows.
        """
        of_documents: list[list[float]] = [[] for _ in self._sentences]
        for index, score in zip(self._documents, scores, strict=True):
            of_documents[index].append(score)
        return [
            [
                Span(start, end, _mean(one, other, scores.are_probabilities))
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
            message = f"document {index}, in one of its sentences: {error}"
            raise relocated(error, index, message) from error


def _windows(document: str, ranges: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Each sentence with the one before it, and the last one alone."""
    first = 0
    for start, end in ranges:
        yield document[first:end].strip()
        first = max(start, end - _MOST_CHARACTERS_BEFORE)
    if ranges:
        start, end = ranges[-1]
        yield document[start:end].strip()


def _mean(one: float, other: float, are_probabilities: bool) -> float:
    # a service may answer with less than 0 where probabilities were asked for
    if are_probabilities and min(one, other) >= 0:
        return math.sqrt(one * other)
    return (one + other) / 2


def sentences(text: str) -> list[tuple[int, int]]:
    """Split a text into sentences.

    White space belongs to the sentence before it, at the text's beginning to the first one. A code
    block and a table are one sentence each.

    :returns: ``(start, end)`` of each sentence in characters, in text order. They cover the text
        without a gap and without overlap; an empty text has none.
    """
    if not text:
        return []
    _, *starts = sorted(set(_starts(text))) or [0]
    return list(pairwise([0, *starts, len(text)]))


def _starts(text: str) -> Iterator[int]:
    """The offsets at which sentences start."""
    lines = text.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    for first, last, is_prose in _blocks(lines):
        start = offsets[first]
        yield start
        if is_prose:
            for length in _prose_lengths(text[start : offsets[last]]):
                start += length
                yield start


def _blocks(lines: list[str]) -> Iterator[tuple[int, int, bool]]:
    """Ranges of lines, each with whether it is prose; blank lines between them are in none."""
    fence_ends = _fence_ends(lines)
    first = 0
    while first < len(lines):
        line, last = lines[first], first + 1
        if first in fence_ends:
            last = fence_ends[first]
            yield first, last, False
        elif _HEADING.match(line):
            yield first, last, False
        elif _TABLE_ROW.match(line):
            while last < len(lines) and _TABLE_ROW.match(lines[last]):
                last += 1
            yield first, last, False
        elif line.strip():
            while last < len(lines) and _continues(lines[last]) and last not in fence_ends:
                last += 1
            yield from _paragraph(lines, first, last)
        first = last


def _fence_ends(lines: list[str]) -> dict[int, int]:
    """The first line of each fenced code block that is closed → the line after its last."""
    ends: dict[int, int] = {}
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        if not (match := _FENCE.match(line)):
            continue
        if opened is None:
            opened = number, match[1]
        elif line.strip().startswith(opened[1]) and not line.strip().strip(opened[1][0]):
            ends[opened[0]] = number + 1
            opened = None
    return ends


def _continues(line: str) -> bool:
    """Whether a paragraph continues on this line."""
    return bool(line.strip()) and not (_HEADING.match(line) or _TABLE_ROW.match(line))


def _paragraph(lines: list[str], first: int, last: int) -> Iterator[tuple[int, int, bool]]:
    items = [number for number in range(first, last) if _LIST_ITEM.match(lines[number])]
    is_code = not items and any(line.startswith(_INDENTED) for line in lines[first + 1 : last])
    for start, end in pairwise(sorted({first, *items, last})):
        yield start, end, not is_code


def _prose_lengths(text: str) -> Iterator[int]:
    """The lengths of all sentences of a paragraph but its last."""
    length = 0
    for part, following in pairwise(_segments(text)):
        length += len(part)
        # what has no letter or digit, such as "😀!", belongs to the sentence before it
        if any(map(str.isalnum, following)) and not _ENDS_IN_NUMBER.search(part):
            yield length
            length = 0


def _segments(text: str) -> Iterator[str]:
    """The text as sentencex splits it, looking at no more than ``_MOST_CHARACTERS`` at one time."""
    while len(text) > _MOST_CHARACTERS:
        *parts, last = sentencex.segment(_LANGUAGE, text[:_MOST_CHARACTERS])
        if len(last) > _MOST_CHARACTERS // 2:
            # no sentence is that long: cut it behind a space, where there is one
            last = last[: last.rfind(" ", 1) + 1] or last
            parts.append(last)
        yield from parts
        text = text[sum(map(len, parts)) :]
    yield from sentencex.segment(_LANGUAGE, text)
