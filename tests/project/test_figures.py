"""Every figure in the documents is in a committed result file, or in a list with its source.

A figure is a number written in digits, outside code, links, names and versions. It is looked up in
the result files that its own section names (or the lines before the document's first section), with
the rounding that it shows. All others stand, word for word, in `figures_elsewhere.json`, each with
the place that it comes from. Numbers in words stand there too, where a unit follows. A wrong figure
passes where the same file has its number by chance; `test_most_altered_figures_are_found_out`
bounds how often. What ratios compare is in `test_ratios.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

DOCUMENTS = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
        *ROOT.glob("training/**/*.md"),
        *ROOT.glob("bge_rerank_integrations/models/*/*.md"),
    }
)
# by the path within the folder: results of several machines have the same names
RESULTS = {
    path.relative_to(ROOT / folder).as_posix(): path
    for folder in ("benchmarks/results", "training")
    for path in (ROOT / folder).glob("**/*.json*")
    if path.name != "python_docs.json"
}
ELSEWHERE = Path(__file__).with_name("figures_elsewhere.json")

# tables that a test compares with the declarations
_GENERATED = re.compile(r"<!-- \w+ -->.*?<!-- end -->", re.DOTALL)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\([^)\s]*\)|\]\[\w+\]|^\[\w+\]: .*$|https?://\S+", re.MULTILINE)
_VERSION = re.compile(
    r"\b(?:Python|torch|transformers|sentence-transformers|FlagEmbedding|FastAPI"
    r"|Apache|CC BY(?:-SA)?|ODC-By|CC0)[ -]\(?\d+(?:\.\d+)+\)?"
)
_ORDINAL = re.compile(r"^#+ .*$|^\s*\d+\. |(?:notebook|section) \d+", re.MULTILINE | re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w@./])(?P<sign>[+−±-])?(?P<digits>\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?P<exponent>e[+-]?\d+)?(?![\w.]*\w)(?P<unit>\s?(?:%|ms|s)(?!\w))?"
)

_WORD = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty"
    "|ninety|hundred|thousand"
)
_SPELLED = re.compile(
    rf"\b(?:{_WORD})(?:-(?:{_WORD}))?(?: and a half)?[ -]"
    r"(?:times?|minutes?|seconds?|hours?|days?|milliseconds?|per ?cent|layers?|points?)\b",
    re.IGNORECASE,
)


# of a result: what it ran on, and single rounds
_UNSHOWN = {"machine", "versions", "seconds", "pairs per second", "p99_ms", "behind_p95_ms"}


@dataclass(frozen=True)
class Figure:
    """A number as a document shows it, and the text around it."""

    value: float
    unit: str
    step: float
    shown: str
    around: str

    def equals(self, measured: float) -> bool:
        """Whether the measured number, in the unit shown, is rounded to this one."""
        shown = abs(measured) * (100 if self.unit == "%" else 1)
        return abs(shown - self.value) <= self.step / 2 * (1 + 1e-6)


def plain(text: str) -> str:
    """The text without what is no figure: code, links, versions, headings, generated tables."""
    for pattern in (_GENERATED, _CODE, _LINK, _VERSION, _ORDINAL):
        text = pattern.sub(" · ", text)
    return " ".join(text.split())


def figures(text: str) -> Iterator[Figure]:
    for match in _NUMBER.finditer(text):
        digits = match["digits"].replace(",", "")
        exponent = int((match["exponent"] or "e0")[1:])
        decimals = len(digits.partition(".")[2])
        step = 10.0 ** (exponent - decimals)
        if "," in match["digits"] and not decimals and digits.endswith("00"):
            step = 100.0  # 13,400 for 13,374
        start, end = match.span()
        yield Figure(
            float(digits + (match["exponent"] or "")),
            (match["unit"] or "").strip(),
            step,
            match[0].strip(),
            text[max(0, start - 60) : end + 60],
        )


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a result, its numeric names, milliseconds as seconds, differences to BM25."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "rounds" and isinstance(inner, list):
                yield float(len(inner))
            elif key not in _UNSHOWN:
                yield from (float(digits) for digits in re.findall(r"(?:top |^)(\d+)\b", key))
                yield from numbers(inner)
                if key.endswith("_ms"):
                    yield from (number / 1000 for number in numbers(inner))
        if "bm25" in value:
            reranked = [value[key] for key in value if key.startswith("reranked top ")]
            yield from (after - value["bm25"] for after in reranked)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


@cache
def results(name: str) -> tuple[float, ...]:
    """The numbers of one result file."""
    text = RESULTS[name].read_text("utf-8")
    rows = (
        [json.loads(line) for line in text.splitlines()]
        if name.endswith("l")
        else [json.loads(text)]
    )
    return tuple(numbers(rows))


def named(text: str) -> set[str]:
    """The result files that a text names."""
    return {name for name in RESULTS if re.search(rf"(?<![\w-]){re.escape(name)}\b", text)}


@cache
def elsewhere() -> tuple[str, ...]:
    """Passages with figures that come from elsewhere, the longest first."""
    rows = json.loads(ELSEWHERE.read_text("utf-8"))
    return tuple(sorted((row["text"] for row in rows), key=len, reverse=True))


def without_elsewhere(text: str) -> str:
    """Plain text less the passages whose figures have another source."""
    for passage in elsewhere():
        text = text.replace(passage, " · ")
    return text


def sections(document: str) -> Iterator[tuple[str, set[str]]]:
    """Each section, and the result files in which its figures are looked up."""
    first, *rest = re.split(r"^(?=###? )", document, flags=re.MULTILINE)
    for section in (first, *rest):
        yield section, named(first) | named(section)


def looked_up(document: str) -> Iterator[tuple[Figure, bool, set[str]]]:
    """Every figure that must be in a result file, whether it is, and the files searched."""
    for section, files in sections(document):
        measured = [number for name in sorted(files) for number in results(name)]
        for figure in figures(without_elsewhere(plain(section))):
            yield figure, any(figure.equals(number) for number in measured), files


def unfounded(document: str) -> list[str]:
    """The figures that are found nowhere, each with its surroundings."""
    return [
        f"{figure.shown} in: {figure.around}"
        for figure, found, _ in looked_up(document)
        if not found
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_is_in_a_result_file_or_has_another_source(path: Path) -> None:
    assert unfounded(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_number_in_words_with_a_unit_has_a_source(path: Path) -> None:
    text = without_elsewhere(plain(path.read_text("utf-8")))
    assert [text[found.start() - 30 : found.end() + 30] for found in _SPELLED.finditer(text)] == []


def test_a_duration_in_words_is_found_out() -> None:
    made_up = (
        "trains in less than fifteen minutes, half as long as four-hour runs and twenty-five times"
    )
    assert len(_SPELLED.findall(made_up)) == 3


def test_every_passage_with_another_source_is_in_a_document_and_names_its_source() -> None:
    texts = [plain(path.read_text("utf-8")) for path in DOCUMENTS]
    for row in json.loads(ELSEWHERE.read_text("utf-8")):
        assert row.keys() == {"text", "source"}
        assert len(row["source"]) > 5, row
        is_figure = bool(list(figures(row["text"])) or _SPELLED.search(row["text"]))
        assert is_figure, f"no figure in {row['text']!r}"
        assert any(row["text"] in text for text in texts), f"{row['text']!r} is in no document"


@pytest.mark.parametrize(
    "made_up", ["is 6.83 times as fast", "reaches 0.917 nDCG@10", "takes 4.77 s"]
)
def test_a_made_up_figure_is_found_out_in_every_section_of_the_readme(made_up: str) -> None:
    document = (ROOT / "README.md").read_text("utf-8")
    for section, _ in sections(document):
        told = document.replace(section, f"{section}\n\nThe engine {made_up}.\n")
        assert len(unfounded(told)) == 1, section.splitlines()[0]


def test_most_altered_figures_are_found_out() -> None:
    """Result files hold many numbers; a figure a tenth higher is seldom among them by chance."""
    passed = total = 0
    for path in DOCUMENTS:
        for figure, _, files in looked_up(path.read_text("utf-8")):
            higher = figure.value + max(
                figure.step, round(figure.value / 10 / figure.step) * figure.step
            )
            altered = replace(figure, value=higher)
            measured = (number for name in files for number in results(name))
            passed += any(altered.equals(number) for number in measured)
            total += 1
    assert total > 200
    assert passed / total < 0.22, f"{passed} of {total} altered figures pass"
