"""Where the sentences of a text begin and end.

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

import re
from collections.abc import Iterator
from itertools import pairwise

import sentencex

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
            while last < len(lines) and _goes_on(lines[last]) and last not in fence_ends:
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


def _goes_on(line: str) -> bool:
    """Whether a paragraph goes on with this line."""
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
