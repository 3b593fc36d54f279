"""Text that is on every machine with Python: its language reference, in passages.

``pydoc_data.topics`` is what ``help("with")`` prints. Its topics overlap (``with`` is also part of
``compound``); repeated passages are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

MIN_WORDS = 60
MAX_WORDS = 150
# a shorter paragraph (a signature, the first line of a bullet) belongs to the next
_LEAD_WORDS = 12

_HEADING = re.compile(r"^(\S.*)\n([*=~^\"-])\2+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n\s*\n")
# "   name ::= …", in newer references "   name: …"
_GRAMMAR = re.compile(r"\n* +(?!(?:else|try|finally):)[a-z_]\w*(?: *::=|: )")
_BORDER = re.compile(r"^\s*[+|][-=+|]+$", re.MULTILINE)
_COLUMN = re.compile(r"(^|\s)\|(?=\s|$)")
_BULLET = re.compile(r"^\s*\* ", re.MULTILINE)
_STRONG = re.compile(r"\*\*(\w[^*]*)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*\"'(])\*(\w(?:[^*]*\w)?)\*(?![\w*])")
_FOOTNOTE = re.compile(r" \[\d+\](?=[ .,;:]|$)")
_SENTENCE_END = re.compile(r"(?<=[.!?:;]) ")


@dataclass(frozen=True, slots=True)
class ReferencePassage:
    """A few paragraphs under one heading.

    :param topic: the heading.
    :param text: 1 to ``MAX_WORDS`` words, on one line.
    """

    topic: str
    text: str

    @property
    def content(self) -> str:
        """Topic and text together: what is searched and reranked."""
        return f"{self.topic}\n{self.text}"


def python_reference() -> list[ReferencePassage]:
    """Python's language reference, as this interpreter ships it."""
    from pydoc_data.topics import topics

    return split_topics(topics)


def split_topics(topics: Mapping[str, str]) -> list[ReferencePassage]:
    """Split reference topics into passages, each once, in the topics' order.

    :param topics: name of the topic → its page.
    """
    passages = (p for topic, page in topics.items() for p in split_page(topic, page))
    return list(dict.fromkeys(passages))


def split_page(topic: str, page: str) -> Iterator[ReferencePassage]:
    """Split one page into passages that do not cross its headings.

    :param topic: heading of what stands before the first heading.
    :param page: plain text with headings underlined, as Sphinx's text builder writes it.
    """
    # the pattern's two groups come between the sections: the heading, its underline's character
    before, *parts = _HEADING.split(page)
    for heading, section in [(topic, before), *zip(parts[0::3], parts[2::3], strict=True)]:
        for text in group(_paragraphs(section)):
            yield ReferencePassage(_clean(heading), text)


def group(paragraphs: Iterable[str]) -> list[str]:
    """Join neighboring paragraphs into texts of ``MIN_WORDS`` to ``MAX_WORDS`` words.

    A text is shorter than ``MIN_WORDS`` only where it is alone, or where the next paragraph would
    make it longer than ``MAX_WORDS``. A longer paragraph is split between its sentences.
    """
    texts: list[list[str]] = []
    for words in _pieces(paragraphs):
        if texts and len(texts[-1]) < MIN_WORDS and len(texts[-1]) + len(words) <= MAX_WORDS:
            texts[-1] += words
        else:
            texts.append(words)
    if len(texts) > 1 and len(texts[-1]) < MIN_WORDS and len(texts[-2] + texts[-1]) <= MAX_WORDS:
        texts[-2:] = [texts[-2] + texts[-1]]
    return [" ".join(words) for words in texts]


def _paragraphs(section: str) -> Iterator[str]:
    """Clean the paragraphs; join a short one, or one that ends with a colon, to the next."""
    lead: list[str] = []
    for block in _BLANK_LINES.split(section):
        # productions of the grammar answer no question asked in words
        if _GRAMMAR.match(block) or not (text := _clean(block)):
            continue
        lead.append(text)
        if len(text.split()) > _LEAD_WORDS and not text.endswith(":"):
            yield " ".join(lead)
            lead = []
    if lead:
        yield " ".join(lead)


def _clean(block: str) -> str:
    """Remove the markup of a block and join its lines: the tokenizers ignore line breaks."""
    if _BORDER.search(block):
        block = _COLUMN.sub(" ", _BORDER.sub("", block))
    line = " ".join(_BULLET.sub("", block).replace("`", "").split())
    return _FOOTNOTE.sub("", _EMPHASIS.sub(r"\1", _STRONG.sub(r"\1", line)))


def _pieces(paragraphs: Iterable[str]) -> Iterator[list[str]]:
    """The words of each paragraph; of each sentence where the paragraph is too long."""
    for paragraph in paragraphs:
        fits = len(paragraph.split()) <= MAX_WORDS
        for part in [paragraph] if fits else _SENTENCE_END.split(paragraph):
            words = part.split()
            yield from (words[i : i + MAX_WORDS] for i in range(0, len(words), MAX_WORDS))
