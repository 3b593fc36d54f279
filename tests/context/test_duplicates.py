"""Documents that say again what a better one has said."""

from __future__ import annotations

from typing import Any

import pytest
from fake_reranker import FakeReranker
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError

from bge_rerank_integrations import langchain, llama_index
from bge_rerank_integrations.context.duplicates import without_duplicates
from bge_rerank_integrations.context.options import DEFAULT_DUPLICATE_SHARE

SHIP = (
    "A ship floats because the water that it displaces weighs as much as the whole ship. "
    "Archimedes found this law in the third century before our time, in a bath, as they say. "
    "It holds for iron as it does for wood, as long as the hull keeps the water out."
)
BREAD = "Bread is baked from flour, water, yeast and salt, which every baker mixes in his own way."
CHINESE = "船之所以能浮在水面上,是因为它排开的水的重量等于船的重量。阿基米德发现了这条定律。"


def kept(*texts: str, share: float = DEFAULT_DUPLICATE_SHARE) -> list[int]:
    return list(without_duplicates(texts, share))


@pytest.mark.parametrize(
    "again",
    [
        SHIP,
        SHIP.upper(),
        SHIP.replace(" ", "\r\n ").replace(",", " –"),
        SHIP.replace("iron", "steel"),
        "Page 7 of 9. " + SHIP,
        SHIP[:120],
    ],
    ids=["copy", "case", "spaces and punctuation", "one word", "header", "part"],
)
def test_what_a_better_text_contains_is_dropped(again: str) -> None:
    assert kept(SHIP, again, BREAD) == [0, 2]


@pytest.mark.parametrize(
    "other",
    [BREAD, SHIP + " " + BREAD * 2, SHIP[150:] + BREAD, " ".join(reversed(SHIP.split())), ""],
    ids=["other", "more", "half", "other order", "empty"],
)
def test_what_says_more_or_other_things_stays(other: str) -> None:
    assert kept(SHIP, other) == [0, 1]


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    window = CHINESE[6:] + "他住在叙拉古。"
    assert kept(CHINESE, CHINESE[:-1], "面包由面粉、水、酵母和盐制成。") == [0, 2]
    assert kept(CHINESE, window) == [0]
    assert kept(CHINESE, window, share=0.95) == [0, 1]


def test_short_and_wordless_texts_are_compared_as_wholes() -> None:
    assert kept("Yes.", "yes", "no", "---", " --- ", "***", "", " ") == [0, 2, 3, 5, 6]


def test_a_text_is_compared_with_single_better_ones() -> None:
    halves = [SHIP[:85], SHIP[85:]]
    assert kept(*halves, SHIP) == [0, 1, 2]
    assert kept(*halves, SHIP, share=0.3) == [0, 1]
    assert kept(SHIP, SHIP, share=1.0) == [0]


@given(st.lists(st.text(alphabet="ab .", max_size=40), max_size=12), st.floats(0.05, 1.0))
def test_no_kept_text_is_a_duplicate_and_every_other_is_one(texts: list[str], share: float) -> None:
    indices = kept(*texts, share=share)

    assert indices == sorted(set(indices))
    assert kept(*(texts[index] for index in indices), share=share) == list(range(len(indices)))
    for index in set(range(len(texts))) - set(indices):
        better = [texts[it] for it in indices if it < index]
        assert kept(*better, texts[index], share=share) == list(range(len(better)))


# --- in the frameworks -------------------------------------------------------------------------

QUERY = "a ship floats on water in iron hull"
# in the order of their scores: 0, 1, 2 (equal to 0 or nearly), 3, 4
TEXTS = [SHIP, SHIP + "!", SHIP[:170], BREAD, "nothing"]


def _of_langchain(**settings: Any) -> list[str]:
    documents = [Document(page_content=text, metadata={"copy": n}) for n, text in enumerate(TEXTS)]
    compressor = langchain.BGERerank(reranker=FakeReranker(), **settings)
    return [it.page_content for it in compressor.compress_documents(documents, QUERY)]


def _of_llama_index(**settings: Any) -> list[str]:
    nodes = [
        NodeWithScore(node=TextNode(text=text, metadata={f"k{n}{key}": 0 for key in range(60)}))
        for n, text in enumerate(TEXTS)
    ]
    postprocessor = llama_index.BGERerank(reranker=FakeReranker(), **settings)
    kept = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    return [it.node.get_content() for it in kept]


@pytest.mark.parametrize("keep", [_of_langchain, _of_llama_index])
def test_the_next_documents_fill_their_places(keep: Any) -> None:
    assert keep(top_n=2) == TEXTS[:2]
    assert keep(top_n=2, drop_duplicates=False) == TEXTS[:2]
    assert keep(top_n=2, drop_duplicates=True) == [SHIP, BREAD]
    assert keep(top_n=None, drop_duplicates=0.8) == [SHIP, BREAD, "nothing"]
    assert keep(top_n=4, drop_duplicates=True, score_threshold=0.2) == [SHIP, BREAD]


def test_a_share_is_between_0_and_1() -> None:
    compressor = langchain.BGERerank(reranker=FakeReranker(), drop_duplicates=True)
    assert compressor.drop_duplicates == DEFAULT_DUPLICATE_SHARE
    assert compressor.model_dump()["drop_duplicates"] == DEFAULT_DUPLICATE_SHARE
    for share in (0, 0.0, -1, 1.5, float("nan"), "half"):
        with pytest.raises(ValidationError, match="drop_duplicates"):
            langchain.BGERerank(reranker=FakeReranker(), drop_duplicates=share)  # type: ignore[arg-type]
