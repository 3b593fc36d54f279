"""Where sentences begin and end, in prose of several scripts, lists, tables and code."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_rerank_integrations.highlighting import sentences

CODE = "```python\nimport os\n\n# Do this. Do that.\nx = os.path\n```\n\n"
TABLE = "| model | score |\n| --- | --- |\n| a. b. | Is it? Yes. |\n\n"
FUNCTION = "def add(a, b):\n    # Add. Then return.\n    return a + b\n\n"

EXAMPLES = {
    "abbreviations": [
        "Dr. Smith paid $3.50 in Washington, D.C. on Jan. 5th. ",
        "Was it made in the U.S. by hand? ",
        "See e.g. sec. 2.1 of v1.2.3.",
    ],
    "wrapped lines": ["A sentence that is wrapped\nover two lines. ", "Another\none."],
    "Chinese": ["深度学习是机器学习的一个分支。", "版本3.5发布了！", "“你知道吗？”", "他说。"],
    "Arabic": ["هل تعرف ما هو التعلم العميق؟ ", "إنه فرع من تعلم الآلة. ", "هذا صحيح."],
    "Hindi": ["यह एक वाक्य है। ", "क्या आप जानते हैं?"],
    "German dates": ["Am 3. Oktober 1990 galt das z. B. in Berlin. ", "Gut!"],
    "emoji and combining characters": [
        "I like it 👨‍👩‍👧. ",
        "Cafe\u0301 is nice!\r\n\r\n",
        "End 😀",
    ],
    "list": [
        "You need:\n",
        "- Python 3.10. ",
        "Or newer.\n",
        "* a disk\n",
        "1. Install it\n",
        "2) Run it",
    ],
    "wrapped list item": ["- One item\n  on two lines. ", "More.\n", "    - Nested"],
    "heading": ["# On ships\n", "They float. ", "They sail.\n", "## Why\n", "Water is heavy."],
    "fenced code": ["Use it so:\n", CODE, "Then call it. ", "Done."],
    "unclosed fence": ["Use it so:\n```\nDo this. ", "Do that."],
    "tilde fence": ["~~~\nA. B. C.\n```\nD? E.\n~~~\n", "Done."],
    "table": ["A table:\n\n", TABLE, "It shows much. ", "Or little."],
    "source code": ["import os\n\n", FUNCTION, "print(add(1, 2))\n"],
    "indented first line": ["    Once upon a time. ", "There was a ship.\n\n", "It sank."],
    "marks of their own": ["Really?! 😀! ", "“Yes.” ", "(No.)"],
    "white space before": ["\n\n  It floats. ", "It sails.\n"],
}


@pytest.mark.parametrize("expected", EXAMPLES.values(), ids=EXAMPLES)
def test_a_text_is_split_where_a_reader_would_split_it(expected: list[str]) -> None:
    text = "".join(expected)

    assert [text[start:end] for start, end in sentences(text)] == expected


def test_only_an_empty_text_has_no_sentence() -> None:
    assert sentences("") == []
    assert sentences(" \r\n\t") == [(0, 4)]


words = ["One. ", "Two? ", "3. ", "- ", "1) ", "# ", "```", "~~~~", "| ", "    ", "word ", "؟ "]
joined = ["\r\n", "\n\n", "👨‍👩‍👧", "e\u0301"]
characters = "\n\t“”。…😀İ\u2028\x0c\x00\ufeff"
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
texts = st.lists(st.sampled_from([*words, *joined, *characters]) | anything).map("".join)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts)
def test_sentences_cover_the_text_without_a_gap(text: str) -> None:
    found = sentences(text)

    assert all(start < end for start, end in found)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert (not text and not found) or (found[0][0], found[-1][1]) == (0, len(text))


def test_a_long_paragraph_is_split_as_a_short_one() -> None:
    parts = [f"This is sentence {number} of them. " for number in range(300)]

    assert [end - start for start, end in sentences("".join(parts))] == [*map(len, parts)]


def test_a_sentence_that_does_not_end_is_cut_between_words() -> None:
    text = "some words, " * 800 + "and"

    found = sentences(text)

    assert max(end - start for start, end in found) <= 2000
    assert all(text[end - 1] == " " for _, end in found[:-1])


@pytest.mark.parametrize(
    "part", [". ", '"A. ', "```x\n", "~~~\n```\n", "- \n", "| a\n", "1. ", "\n", "a.b ", "“x "]
)
def test_a_hostile_text_takes_time_linear_in_its_length(part: str) -> None:
    text = part * (100_000 // len(part))
    started = time.process_time()

    sentences(text)

    assert time.process_time() - started < 1
