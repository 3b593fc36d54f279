"""Documents without the sentences that score low."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_rerank_integrations.context.selection import prune
from bge_rerank_integrations.highlighting import Span, sentences


def spans(parts: list[str], scores: list[float]) -> list[Span]:
    offsets = [0]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return [Span(*offsets, score) for offsets, score in zip(pairwise(offsets), scores, strict=True)]  # type: ignore[misc]


CODE = "```\nx = 1\n```\n\n"


@pytest.mark.parametrize(
    ("parts", "scores", "pruned", "marked"),
    [
        (["A. ", "B. ", "C."], [1, 0, 1], "A. C.", "A. … C."),
        (["A. ", "B.\n\n", "C."], [1, 0, 1], "A.\n\nC.", "A. …\n\nC."),
        (["A.\n\n", "B. ", "C."], [1, 0, 1], "A.\n\nC.", "A.\n\n… C."),
        (["A. ", "B. ", "C. ", "D."], [0, 0, 1, 0], "C.", "… C. …"),
        (["A. ", "B.\n\n", "C.\n"], [1, 0, 0], "A.\n", "A. …\n"),
        (["一。", "二。", "三。"], [1, 0, 1], "一。三。", "一。…三。"),
        (["Use: ", "Not.\n\n", CODE, "C. ", "D."], [1, 0, 1, 0, 1],
         f"Use:\n\n{CODE}D.", f"Use: …\n\n{CODE}… D."),
        (["- a\n", "- b\n", "- c\n\n", "D."], [1, 0, 0, 1], "- a\n\nD.", "- a\n…\n\nD."),
        (["A.\r\n\r\n", "B.\r\n", "C."], [0, 1, 0], "B.", "…\r\n\r\nB.\r\n…"),
        (["A. ", "B."], [0, 0], "A.", "A. …"),
        (["A. ", "B."], [-3, -2], "B.", "… B."),
        (["  A. ", "B."], [1, 0.5], "  A. B.", "  A. B."),
    ],
)  # fmt: skip
def test_what_scores_low_is_cut_and_the_rest_stays_readable(
    parts: list[str], scores: list[float], pruned: str, marked: str
) -> None:
    found = spans(parts, scores)

    assert prune("".join(parts), found, 0.5) == pruned
    assert prune("".join(parts), found, 0.5, mark="…") == marked


def test_a_share_of_the_best_score_is_a_threshold_too() -> None:
    found = spans(["A. ", "B. ", "C. ", "D."], [0.1, 0.04, 0.019, 0.021])

    assert prune("A. B. C. D.", found, share=0.2) == "A. B. D."
    assert prune("A. B. C. D.", found, 0.03, share=0.2) == "A. B."
    assert prune("A. B. C. D.", found, 0.01, share=0.5) == "A. B."
    assert prune("A. B. C. D.", found) == prune("A. B. C. D.", found, share=0) == "A. B. C. D."


def test_neighbors_of_the_best_sentence_stay_unless_they_score_very_low() -> None:
    text = "Who? In May. It has 40 pages. Anna Meyer is its author. It is red. It was sold."
    parts = ["Who? ", "In May. ", "It has 40 pages. ", "Anna Meyer is its author. ",
             "It is red. ", "It was sold."]  # fmt: skip
    found = spans(parts, [0.04, 0.9, 0.01, 0.06, 0.02, 0.2])
    # cut by 0.09: the best one's neighbors stay from 0.009 on
    assert prune(text, found, share=0.1) == "Who? In May. It has 40 pages. It was sold."
    found = spans(parts, [0.004, 0.9, 0.01, 0.06, 0.02, 0.2])
    assert prune(text, found, share=0.1) == "In May. It has 40 pages. It was sold."
    # logits: a tenth of a threshold below 0 would be above it
    found = spans(parts, [-5, 3, -1, -0.2, -9, -9])
    assert prune(text, found, -2) == "In May. It has 40 pages. Anna Meyer is its author."
    assert prune(text, found, 2) == "In May."


def test_a_share_of_a_score_below_0_cuts_nothing() -> None:
    assert prune("A. B.", spans(["A. ", "B."], [-2, -5]), share=0.2) == "A. B."


def test_an_empty_text_stays_empty() -> None:
    assert prune("", [], 0.5, share=0.5) == ""


pieces = st.sampled_from(
    [
        "One. ",
        "Two.\r\n\r\n",
        "Café! ",
        "e\u0301? ",
        "👨‍👩‍👧. ",
        "- x\n",
        "```\n",
        "三。",
        "\n\n",
        " ",
    ]
)
texts = st.lists(pieces | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)).map(
    "".join
)
every = settings(max_examples=100, deadline=None, derandomize=True)


@every
@given(texts, st.data())
def test_a_threshold_of_0_changes_nothing(text: str, data: st.DataObject) -> None:
    found = [Span(*each, data.draw(st.floats(0, 1))) for each in sentences(text)]

    assert prune(text, found, 0) == prune(text, found, 0, mark="…") == text


@every
@given(texts, st.data())
def test_every_sentence_that_stays_is_there_whole_and_in_order(
    text: str, data: st.DataObject
) -> None:
    found = [Span(*each, data.draw(st.floats(0, 1))) for each in sentences(text)]
    best = max(found, key=lambda span: span.score, default=None)

    pruned = prune(text, found, 0.5)

    # neighbors of the best one stay from a tenth of the threshold on
    place = found.index(best) if best else 0
    stays = [
        span
        for index, span in enumerate(found)
        if span.score >= (0.05 if abs(index - place) == 1 else 0.5) or span is best
    ]
    # but for white space: words that a cut brings together keep one separator
    kept = "".join(text[span.start : span.end] for span in stays)
    assert "".join(pruned.split()) == "".join(kept.split())
    assert len(pruned) <= len(text)
