"""Every ratio of speeds is of a committed run, and what was compared is said beside it.

A ratio is a number before "times" or in a column "faster by". The run is a result file that the
same paragraph names (in a table: the paragraphs and the table of the same section). Beside the
number stand the precisions of both sides, the texts, the machine, and the weights where they are
random.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from project.test_figures import RESULTS, named, plain, without_elsewhere

DOCUMENTS = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted(ROOT.glob("docs/*.md")),
        ROOT / "benchmarks" / "README.md",
        ROOT / "training" / "README.md",
    )
    if path.exists()
]
_TIMES = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\**(?: and \**(\d+(?:\.\d+)?)\**)? times\b")
_WORDS = {
    "xquad-en": "XQuAD",
    "scifact-test": "SciFact",
    "scifact-train": "SciFact",
    "Python's reference": "Python's reference",
}
_MACHINES = {"AMD EPYC": "EPYC", "Intel(R) Xeon(R) Processor": "Xeon"}
# two of the peers' batches of 32
MIN_PAIRS = 64
_PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Ratio:
    """A ratio as a document shows it.

    :param around: what the reader sees beside it, with its links.
    :param row: the line of the table that it stands in, where that has a column for the precision.
    """

    value: str
    around: str
    row: str = ""


def ratios(document: str) -> Iterator[Ratio]:
    """All ratios of a document, but those whose source is elsewhere (aims, advice)."""
    for section in re.split(r"^(?=#)", document, flags=re.MULTILINE):
        blocks = section.split("\n\n")
        texts = "\n\n".join(block for block in blocks if not block.startswith("|"))
        for block in blocks:
            if block.startswith("|"):
                yield from _of_table(block, texts)
            else:
                for found in _TIMES.finditer(without_elsewhere(plain(block))):
                    yield from (Ratio(value, block) for value in found.groups() if value)


def _of_table(table: str, texts: str) -> Iterator[Ratio]:
    header, _, *rows = (
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()
    )
    columns = [number for number, name in enumerate(header) if "faster by" in name]
    for row in rows:
        # the precision is one of each row, or said beside the table
        line = " | ".join(row) if "precision" in header else ""
        for found in _TIMES.finditer(" | ".join(row)):
            yield Ratio(found[1], f"{texts}\n{table}", line)
        for number in columns:
            if re.fullmatch(r"\d+(\.\d+)?", row[number]):
                around = f"{texts}\n{header[number]}\n{table}"
                yield Ratio(row[number], around, line)


def _precision(peer: str) -> str:
    """What a row was computed in: older runs name what is not float32."""
    return next((each for each in _PRECISIONS if each in peer), "float32")


def measured(report: dict[str, Any]) -> Iterator[tuple[float, str, str]]:
    """The ratios in a result: value, and what the slower and the faster one computed in."""
    for row in report.get("rows", ()):
        for key, value in row.items():
            if key.endswith(" is faster by"):
                yield value, _precision(row["peer"]), _precision(key)
    if "faster_by" in report:
        yield report["faster_by"], "float32", "float32"


def missing(ratio: Ratio, report: dict[str, Any]) -> list[str]:
    """What the text does not say of the run that the ratio comes from, none if it all is said."""
    texts = report["texts"] if isinstance(report["texts"], list) else [report["texts"]]
    wanted = [_WORDS[text] for text in texts]
    wanted.append(_MACHINES[report["machine"]["cpu"]])
    if report["model"] != "tiny":
        wanted.append("random weights")
    said = " ".join(ratio.around.split())
    return [word for word in wanted if word not in said]


def unsaid(ratio: Ratio) -> str | None:
    """What is wrong with a ratio; None if nothing is."""
    decimals = len(ratio.value.partition(".")[2])
    reasons = [f"no result file beside it has it: {sorted(named(ratio.around))}"]
    for name in sorted(named(ratio.around)):
        if not name.endswith(".json"):
            continue
        report = json.loads(RESULTS[name].read_text("utf-8"))
        if "rows" not in report and "faster_by" not in report:
            if _is_in(report, ratio.value, decimals):
                return None
            continue
        pairs = [
            {slow, fast}
            for value, slow, fast in measured(report)
            if abs(value - float(ratio.value)) <= 0.5 * 10**-decimals + 1e-9
        ]
        if not pairs:
            continue
        if ratio.row:
            pairs = [pair for pair in pairs if len(pair) > 1 or any(p in ratio.row for p in pair)]
        if not any(all(each in ratio.around for each in pair) for pair in pairs):
            reasons.append(f"{name}: the precisions are not named")
            continue
        if gaps := missing(ratio, report):
            reasons.append(f"{name}: {gaps} are not named")
            continue
        return None
    return reasons[-1]


def _is_in(value: Any, shown: str, decimals: int) -> bool:
    if isinstance(value, dict):
        return any(_is_in(inner, shown, decimals) for inner in value.values())
    if isinstance(value, list):
        return any(_is_in(inner, shown, decimals) for inner in value)
    return isinstance(value, (int, float)) and f"{value:.{decimals}f}" == shown


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_ratio_is_of_a_committed_run_and_says_what_was_compared(path: Path) -> None:
    wrong = {
        f"{ratio.value} in: {ratio.row or ' '.join(ratio.around.split())[:80]}": said
        for ratio in ratios(path.read_text("utf-8"))
        if (said := unsaid(ratio))
    }
    assert not wrong


def test_ratios_are_found_in_text_and_in_tables() -> None:
    document = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert len(list(ratios(document))) > 15
    assert len(list(ratios((ROOT / "README.md").read_text("utf-8")))) >= 3


RUN = "amd-epyc-avx2/gte-reranker-modernbert-base.json"
SPEED = (
    "On a 2-core AMD EPYC, passages of Python's reference, random weights: in float32 {value} "
    "times as fast as sentence-transformers in float32 ([figures]({file})).\n"
)


def told(changes: Mapping[str, str]) -> str | None:
    """What is wrong with a true sentence about speed, of which some words were changed."""
    rows = json.loads(RESULTS[RUN].read_text("utf-8"))["rows"]
    (shown,) = (row for row in rows if row["peer"] == "sentence-transformers")
    text = SPEED.format(value=shown["engine float32 is faster by"], file=RUN)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (ratio,) = ratios(text)
    return unsaid(ratio)


def test_a_sentence_that_leaves_out_what_was_compared_is_found_out() -> None:
    assert told({}) is None
    for word in ("Python's reference", "EPYC", "float32", "random weights"):
        assert "not named" in str(told({word: "it"})), word
    assert "no result file" in str(told({" times": "7 times"}))
    assert "no result file" in str(told({RUN: "elsewhere"}))


def test_no_ratio_to_another_package_in_the_readme_is_across_precisions() -> None:
    for path in (ROOT / "README.md", ROOT / "docs" / "performance.md"):
        for ratio in ratios(path.read_text("utf-8")):
            for name in named(ratio.around):
                report = json.loads(RESULTS[name].read_text("utf-8"))
                of_peers = [
                    (slow, fast)
                    for value, slow, fast in measured(
                        {
                            "rows": [
                                row
                                for row in report.get("rows", ())
                                if not row["peer"].startswith("engine")
                            ]
                        }
                    )
                    if f"{value:.{len(ratio.value.partition('.')[2])}f}" == ratio.value
                ]
                same = [slow == fast for slow, fast in of_peers]
                assert not same or any(same), f"{ratio.value} in {path.name}"


def test_runs_against_other_packages_have_two_batches_or_say_that_it_is_one() -> None:
    document = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    for name, path in RESULTS.items():
        if not name.endswith(".json"):
            continue
        report = json.loads(path.read_text("utf-8"))
        shown = [row["peer"] for row in report.get("rows", ()) if "peer" in row]
        if any(not peer.startswith("engine") for peer in shown):
            texts = report["texts"] if isinstance(report["texts"], list) else [report["texts"]]
            assert len(texts) == 1, name
            if report["pairs"] < MIN_PAIRS:
                sections = re.split(r"^(?=#)", document, flags=re.MULTILINE)
                (section,) = (each for each in sections if name in named(each))
                assert "one batch" in section, name


def test_every_section_of_the_benchmarks_names_the_machine_of_its_figures() -> None:
    document = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    sections = re.split(r"^(?=#)", document, flags=re.MULTILINE)
    checked = 0
    for section in sections:
        for name in named(section):
            rows = RESULTS[name].read_text("utf-8").splitlines()
            report = json.loads(rows[0] if name.endswith("l") else "".join(rows))
            machine = report.get("machine", {}) if isinstance(report, dict) else {}
            if isinstance(machine, dict) and machine.get("cpu"):
                assert _MACHINES[machine["cpu"]] in section, f"{name} in {section.splitlines()[0]}"
                checked += 1
    assert checked > 10
