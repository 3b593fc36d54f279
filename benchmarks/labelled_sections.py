"""Sections of text with a question each, and where in the text its answers are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# of characters: the first, and the one after the last
Range = tuple[int, int]


@dataclass(frozen=True)
class Section:
    """A text and a question that it answers.

    :param answers: where it does; one of them is enough.
    """

    question: str
    text: str
    answers: Sequence[Range]


def read_selqa(path: Path) -> Iterator[Section]:
    """Sections of SelQA's answer sentence selection (``selqa-ass-test.json``)."""
    for row in json.loads(path.read_text("utf-8")):
        yield _joined(row["question"], row["candidates"], row["answers"])


def read_trecqa(path: Path) -> Iterator[Section]:
    """The candidate sentences of each question as one section; most are of different articles."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        answers = [index for index, label in enumerate(row["labels"]) if label]
        yield _joined(row["query"], row["candidates"], answers)


def read_squad(path: Path) -> Iterator[Section]:
    """Paragraphs with an answer's words each, in the form of SQuAD, as XQuAD has them."""
    for article in json.loads(path.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = [
                    (answer["answer_start"], answer["answer_start"] + len(answer["text"]))
                    for answer in asked["answers"]
                ]
                yield Section(asked["question"], paragraph["context"], answers)


READERS = {"selqa": read_selqa, "squad": read_squad, "trecqa": read_trecqa}


def _joined(question: str, sentences: Sequence[str], answering: Sequence[int]) -> Section:
    ends = []
    end = -1
    for sentence in sentences:
        end += 1 + len(sentence)
        ends.append(end)
    answers = [(ends[index] - len(sentences[index]), ends[index]) for index in answering]
    return Section(question, " ".join(sentences), answers)
