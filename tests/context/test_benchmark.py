"""What `benchmarks/context.py` counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.context import _at
from benchmarks.labelled_sections import READERS, Section
from bge_rerank_integrations.highlighting import Span

SENTENCES = ["It was built in 1871.", "It is red.", "Ships see it."]
TEXT = " ".join(SENTENCES)


@pytest.mark.parametrize(
    ("form", "content", "answer"),
    [
        ("selqa", [{"question": "q", "candidates": SENTENCES, "answers": [1]}], "It is red."),
        ("trecqa", {"query": "q", "candidates": SENTENCES, "labels": [0, 0, 1]}, "Ships see it."),
        (
            "squad",
            {"data": [{"paragraphs": [{"context": TEXT, "qas": [
                {"question": "q", "answers": [{"answer_start": 16, "text": "1871"}]}]}]}]},
            "1871",
        ),
    ],
)  # fmt: skip
def test_an_answer_lies_where_its_collection_says(
    tmp_path: Path, form: str, content: object, answer: str
) -> None:
    path = tmp_path / "sections.json"
    path.write_text(json.dumps(content))

    [section] = READERS[form](path)

    assert (section.question, section.text) == ("q", TEXT)
    assert [section.text[start:end] for start, end in section.answers] == [answer]


def test_words_and_answers_are_counted_over_all_sections() -> None:
    # five, three and three words
    spans = [Span(0, 22, 0.9), Span(22, 33, 0.2), Span(33, 46, 0.1)]
    first, last, both = (0, 21), (33, 46), (16, 30)
    scored = [(Section("q", TEXT, [answer]), spans) for answer in (first, last, both)]

    assert _at(scored, 0.5) == {
        "threshold": 0.5, "words_removed": round(3 / 11, 4), "answers_kept": round(2 / 3, 4),
    }  # fmt: skip
    assert _at(scored, 0.2)["answers_kept"] == round(2 / 3, 4)
    assert _at(scored, 0)["words_removed"] == 0
    assert _at(scored, share=0.2) == {"share": 0.2} | {
        name: count for name, count in _at(scored, 0.18).items() if name != "threshold"
    }
    assert _at([(Section("q", TEXT, [last, first]), spans)], 0.95)["answers_kept"] == 1
