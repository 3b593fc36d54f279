"""Python's reference, in passages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bge_rerank_integrations.cli.passages import (
    MAX_WORDS,
    MIN_WORDS,
    ReferencePassage,
    group,
    python_reference,
    split_page,
    split_topics,
)

PAGE = """\
The "with" statement
********************

The "with" statement is used to wrap the execution of a *block* with
methods defined by a **context manager**. [1]

   with_stmt ::= "with" ( "(" with_stmt_contents ")" ) ":" suite

   with_item: expression ["as" target]

The following code:

   with EXPRESSION as TARGET:
       SUITE


Context Managers
================

object.__enter__(self)

   Enter the runtime context.

+--------+---------+
| Name   | Meaning |
+========+=========+
| x | y  | either  |
+--------+---------+
"""

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
paragraphs = st.lists(st.lists(words, max_size=400).map(" ".join), max_size=12)
pages = st.lists(
    st.sampled_from(["word", "A sentence. ", "\n", "\n\n", "   ", "*", "**", "* ", "`", "[1]",
                     "::=", "ends:", "Title\n=====\n", "Title\n*****\n", "+---+\n", "| cell |"]),
    max_size=300,
).map("".join)  # fmt: skip


def word_count(text: str) -> int:
    return len(text.split())


@given(paragraphs)
def test_grouping_loses_no_word_and_keeps_every_text_within_bounds(paragraphs: list[str]) -> None:
    texts = group(paragraphs)
    assert " ".join(texts).split() == " ".join(paragraphs).split()
    assert all(1 <= word_count(text) <= MAX_WORDS for text in texts)


@given(st.lists(st.integers(1, MAX_WORDS), max_size=12))
def test_a_short_text_has_no_neighbour_that_it_fits(counts: Sequence[int]) -> None:
    texts = group(["word " * count for count in counts])
    for before, after in itertools.pairwise(texts):
        if word_count(before) < MIN_WORDS:
            assert word_count(before) + word_count(after) > MAX_WORDS


@given(st.text(), pages)
def test_any_page_splits_into_passages_within_bounds(topic: str, page: str) -> None:
    for passage in split_page(topic, page):
        assert 1 <= word_count(passage.text) <= MAX_WORDS
        assert "\n" not in passage.text


def test_a_long_paragraph_is_split_between_its_sentences() -> None:
    sentence = "One two three four five six seven eight nine ten."
    texts = group([" ".join([sentence] * 40)])
    assert len(texts) > 1
    assert all(text.endswith("ten.") for text in texts)


def test_markup_grammar_and_headings_do_not_reach_the_passages() -> None:
    assert list(split_page("with", PAGE)) == [
        ReferencePassage(
            'The "with" statement',
            'The "with" statement is used to wrap the execution of a block with methods defined '
            "by a context manager. The following code: with EXPRESSION as TARGET: SUITE",
        ),
        ReferencePassage(
            "Context Managers",
            "object.__enter__(self) Enter the runtime context. Name Meaning x y either",
        ),
    ]


def test_text_before_the_first_heading_gets_the_topic_for_a_title() -> None:
    assert list(split_page("del", "Deletion.")) == [ReferencePassage("del", "Deletion.")]


def test_a_passage_that_comes_under_two_topics_is_kept_once() -> None:
    assert split_topics({"with": PAGE, "compound": PAGE}) == list(split_page("with", PAGE))


def test_the_reference_of_this_python_makes_some_hundred_passages() -> None:
    passages = python_reference()
    assert len(passages) > 300
    assert len(set(passages)) == len(passages)
    counts = [word_count(passage.text) for passage in passages]
    assert max(counts) <= MAX_WORDS
    assert sum(count >= MIN_WORDS for count in counts) > 0.8 * len(counts)
    assert any(passage.topic == 'The "with" statement' for passage in passages)
