"""Which documents are kept, and how a long list shows its progress."""

from __future__ import annotations

from typing import Any

import pytest
from fake_reranker import FakeReranker
from fakes import MakeEngine
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from bge_rerank_integrations import ConfigurationError, langchain, llama_index
from bge_rerank_integrations.context.selection import Candidates, Kept

TEXTS = [f"text {number}" for number in range(40)]


@given(st.lists(st.sampled_from(["", " ", "a", "b"]), max_size=8), st.integers(1, 9), st.data())
def test_texts_are_ranked_around_those_that_have_none(
    texts: list[str], top_n: int, data: st.DataObject
) -> None:
    candidates = Candidates(texts, [f"read {text}" for text in texts])
    scored = [index for index, text in enumerate(texts) if text.strip()]
    order = data.draw(st.permutations(range(len(scored))))

    kept = candidates.kept([Kept(place, 0.5) for place in order], None)

    assert candidates.texts == [texts[index] for index in scored]
    assert candidates.read == [f"read {texts[index]}" for index in scored]
    assert sorted(it.index for it in kept) == list(range(len(texts)))
    assert [it.index for it in kept if it.score] == [scored[place] for place in order]
    assert all(kept[index].index == index for index in range(len(texts)) if index not in scored)
    assert candidates.kept([Kept(place, 0.5) for place in order], top_n) == kept[:top_n]


def test_what_has_no_text_follows_if_too_few_are_kept_before_it() -> None:
    candidates = Candidates(["a", "b", "c", "", "d", ""], TEXTS)

    assert [it.index for it in candidates.kept([Kept(2, 1.0)], None)] == [2, 3, 5]


# --- progress ----------------------------------------------------------------------------------


async def _of_langchain(reranker: Any, is_async: bool, **settings: Any) -> list[Any]:
    compressor = langchain.BGERerank(reranker=reranker, **settings)
    documents = [Document(page_content=text) for text in TEXTS]
    if is_async:
        kept = await compressor.acompress_documents(documents, "q")
    else:
        kept = compressor.compress_documents(documents, "q")
    return [(it.page_content, it.metadata["relevance_score"]) for it in kept]


async def _of_llama_index(reranker: Any, is_async: bool, **settings: Any) -> list[Any]:
    postprocessor = llama_index.BGERerank(reranker=reranker, **settings)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    if is_async:
        kept = await postprocessor.apostprocess_nodes(nodes, query_str="q")
    else:
        kept = postprocessor.postprocess_nodes(nodes, query_str="q")
    return [(it.node.get_content(), it.score) for it in kept]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("keep", [_of_langchain, _of_llama_index])
async def test_a_long_list_shows_its_progress(
    keep: Any, is_async: bool, make_engine: MakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make_engine()
    settings = {"top_n": 5, "score_threshold": 1e6}

    kept = await keep(engine, is_async, show_progress=True, **settings)

    shown = capsys.readouterr()
    assert "40/40" in shown.err
    assert shown.out == ""
    assert kept == await keep(engine, is_async, **settings)
    assert len(kept) == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("keep", [_of_langchain, _of_llama_index])
async def test_progress_needs_an_engine(keep: Any, is_async: bool) -> None:
    with pytest.raises(ConfigurationError, match=r"show_progress needs .*, got FakeReranker"):
        await keep(FakeReranker(), is_async, show_progress=True)


@pytest.mark.parametrize(
    ("pairs", "show_progress", "calls"), [(40, True, 3), (40, False, 1), (400, True, 20)]
)
def test_a_bar_moves_in_some_twenty_steps(
    make_engine: MakeEngine, pairs: int, show_progress: bool, calls: int
) -> None:
    engine = make_engine()

    engine.score_pairs([("q", str(number)) for number in range(pairs)], show_progress=show_progress)

    assert sum(engine.stats().queue_wait_s.counts) == calls
