"""Chunks of free manuals as a splitter leaves them, and what their users ask for.

A request is a heading, an option, a message or a few words; the chunk below it answers. The same
page in other languages is what a reranker for English must put last.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

from training.records import Data, Passage, Question
from training.requests import Rarity
from training.texts import normalized

# Debian 12's packages and where their English pages lie, each unpacked (`dpkg -x`) below its own
# name. None of them is one of manuals-dev's.
PACKAGES = {
    "apache2-doc": "usr/share/doc/apache2-doc/manual/en",
    "bind9-doc": "usr/share/doc/bind9-doc/arm",
    "cmake-doc": "usr/share/doc/cmake-data/html",
    "exim4-doc-html": "usr/share/doc/exim4-doc-html/spec_html",
    "fetchmail": "usr/share/doc/fetchmail",
    "kicad-doc-en": "usr/share/doc/kicad/help/en",
    "libreoffice-help-en-us": "usr/share/libreoffice/help/en-US/text",
    "mpd": "usr/share/doc/mpd/html",
    "python-django-doc": "usr/share/doc/python-django-doc/html",
    "wireshark-doc": "usr/share/doc/wireshark",
    "zsh-doc": "usr/share/doc/zsh-doc/html",
}
# The same pages in German, French and Spanish.
FOREIGN = {
    "libreoffice-help-de": "usr/share/libreoffice/help/de/text",
    "libreoffice-help-es": "usr/share/libreoffice/help/es/text",
    "libreoffice-help-fr": "usr/share/libreoffice/help/fr/text",
}
NOT_PAGES = re.compile(
    r"index|contents|changes|release|search|toc|history|news|api/|_source", re.IGNORECASE
)

# Lines that lead from page to page.
NAVIGATION = {
    "contents", "index", "navigation", "next", "next topic", "previous", "previous topic",
    "quick search", "search", "show source", "table of contents", "this page",
}  # fmt: skip

MANUALS = "manuals"
# Words of a chunk: a new heading ends one that has enough, any paragraph one that is full.
FULL_WORDS, HEADING_WORDS, FEWEST_WORDS = 170, 60, 25
GENERIC = NAVIGATION | {
    "abstract", "arguments", "contents", "description", "example", "examples", "introduction",
    "name", "notes", "note", "options", "overview", "parameters", "related topics", "see also",
    "summary", "synopsis", "syntax", "usage", "warning",
}  # fmt: skip
MESSAGE = re.compile(
    r"[^.\n]*\b(error|failed|cannot|can't|unable|invalid|denied|refused|not found)\b[^.\n]*"
)


@dataclass(frozen=True)
class Chunk:
    """Consecutive paragraphs of a page.

    :param page: identifies the page in every language.
    :param headings: the nearest heading, and those inside.
    :param options: terms that the chunk explains.
    """

    page: str
    title: str
    text: str
    headings: tuple[str, ...]
    options: tuple[str, ...]


class _Blocks(HTMLParser):
    """A page's paragraphs in order, each with the element that it stands in."""

    _BLOCKS = frozenset({"p", "li", "dt", "dd", "pre", "tr", "h1", "h2", "h3", "h4", "h5", "title"})
    _SKIPPED = frozenset({"script", "style", "nav", "header", "footer", "aside", "button", "label"})

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[str, str]] = []
        self._kind, self._text, self._skipped = "p", "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in self._SKIPPED:
            self._skipped += 1
        elif tag in self._BLOCKS:
            self._end()
            self._kind = tag
        elif tag in {"td", "th"} and self._text.strip():
            self._text += " | "
        elif tag == "br":
            self._text += "\n"

    def handle_endtag(self, tag: str) -> None:
        if tag in self._SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif tag in self._BLOCKS or tag in {"div", "table", "body"}:
            self._end()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._text += data

    def _end(self) -> None:
        text = self._text.replace("¶", "")
        text = text.strip("\n") if self._kind == "pre" else " ".join(text.split())
        if text.strip(" |"):
            self.blocks.append((self._kind, text))
        self._kind, self._text = "p", ""


def chunks(packages: Path, folders: dict[str, str]) -> Iterator[Chunk]:
    """The chunks of every page of the packages, in order."""
    for package, below in folders.items():
        folder = packages / package / below
        for page in sorted(folder.rglob("*.html*")):
            name = page.relative_to(folder).as_posix()
            if not NOT_PAGES.search(name):
                yield from _of_page(page, name)


def _of_page(page: Path, name: str) -> Iterator[Chunk]:
    parser = _Blocks()
    parser.feed(page.read_text("utf-8", errors="replace"))
    parser.close()
    title, heading = "", ""
    lines: list[str] = []
    headings: list[str] = []
    options: list[str] = []
    words = 0

    def chunk() -> Iterator[Chunk]:
        if words >= FEWEST_WORDS:
            yield Chunk(name, title, "\n".join(lines), tuple(headings), tuple(options))

    for kind, text in parser.blocks:
        is_heading = kind.startswith("h")
        if kind == "title":
            title = re.split(r" [—|-] ", text)[0]
            continue
        if normalized(text) in NAVIGATION or text.endswith("»") or "[ < ]" in text:
            continue
        if words >= FULL_WORDS or (is_heading and words >= HEADING_WORDS):
            yield from chunk()
            lines, headings, options, words = [], [heading] if heading else [], [], 0
        if is_heading:
            heading = re.sub(r"^[\d.]+\s*", "", text)
            headings.append(heading)
        if kind == "dt":
            options.append(text)
        # a long paragraph counts as much as fits: the rest would make the chunk a page
        shown = text if len(text) < 1600 else text[:1600].rsplit(" ", 1)[0]
        lines.append(shown)
        words += len(shown.split())
    yield from chunk()


def as_passage(chunk: Chunk) -> Passage:
    """A chunk to be ranked; its group is the page."""
    return Passage(chunk.text, chunk.title, chunk.page)


def requests(packages: Path, seed: int) -> Data:
    """A request for every chunk that one can be made for, and all chunks as the pool.

    What is asked with is taken out of the answer, where it stands as a line of its own.
    """
    rng = random.Random(seed)
    found = {normalized(chunk.text): chunk for chunk in chunks(packages, PACKAGES)}
    pool = [as_passage(chunk) for chunk in found.values()]
    rarity = Rarity(pool)
    questions = []
    for chunk in found.values():
        query = _query(chunk, rarity, rng)
        if query:
            lines = [
                line for line in chunk.text.split("\n") if normalized(line) != normalized(query)
            ]
            passage = replace(as_passage(chunk), text="\n".join(lines))
            questions.append(Question(query, (passage,), MANUALS, MANUALS))
    rng.shuffle(questions)
    return Data(questions, {MANUALS: pool})


def _query(chunk: Chunk, rarity: Rarity, rng: random.Random) -> str:
    """What a user may ask where this chunk answers; empty if nothing says enough."""
    headings = [
        heading
        for heading in chunk.headings
        if normalized(heading) not in GENERIC and 2 <= len(heading.split()) <= 12
    ]
    message = MESSAGE.search(chunk.text)
    draw = rng.random()
    if message and draw < 0.3 and 5 <= len(message[0].split()) <= 25:
        return message[0].strip()
    if chunk.options and draw < 0.5:
        option = rng.choice(chunk.options)[:60]
        template = rng.choice(("what does {} do", "{}", "{} option", "meaning of {}"))
        return template.format(option)
    if headings and draw < 0.85:
        heading = rng.choice(headings)
        template = rng.choice(("{}", "{}", "{} in " + chunk.title, "how does this work: {}"))
        return template.format(heading)
    return " ".join(rarity.rarest(chunk.text, rng.randint(2, 5)))
