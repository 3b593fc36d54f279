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
from pydantic import ValidationError

from bge_rerank_integrations import langchain, llama_index
from bge_rerank_integrations.context.selection import Kept, best, distinct, ranked, with_unscored
from bge_rerank_integrations.errors import ScoringError
from bge_rerank_integrations.ranking import RankedDocument, Ranking

TEXTS = [f"text {number}" for number in range(40)]


def _ranked(order: list[int]) -> list[Kept]:
    return [Kept(index, 0.5, TEXTS[index]) for index in order]


@given(st.lists(st.booleans(), max_size=8), st.integers(1, 9), st.data())
def test_documents_are_ranked_around_those_that_are_not_scored(
    has_text: list[bool], top_n: int, data: st.DataObject
) -> None:
    texts = TEXTS[: len(has_text)]
    scored = [index for index, has in enumerate(has_text) if has]
    order = data.draw(st.permutations(scored))

    kept = with_unscored(_ranked(order), texts, scored, None)

    assert sorted(it.index for it in kept) == list(range(len(texts)))
    assert [it.index for it in kept if it.score] == order
    assert all(kept[index].index == index for index in range(len(texts)) if index not in scored)
    fewer = with_unscored(_ranked(order), texts, scored, top_n)
    ranked = [it.index for it in fewer if it.score]
    assert len(fewer) == min(top_n, len(texts))
    assert ranked == order[: len(ranked)]
    # half of the places, or more, are those of ranked documents, as long as there are any
    assert len(ranked) >= min(len(order), top_n - top_n // 2)


def test_what_has_no_text_follows_if_too_few_are_kept_before_it() -> None:
    kept = with_unscored(_ranked([2]), TEXTS[:6], [0, 1, 2, 4], None)

    assert [it.index for it in kept] == [2, 3, 5]


def test_a_step_takes_any_number_as_top_n() -> None:
    kept = _ranked([2, 0, 1])

    for top_n in (3, 10**30, None):
        assert distinct(kept, 1.0, top_n) == kept
        assert with_unscored(kept, TEXTS[:3], [0, 1, 2], top_n) == kept
    assert best(kept, None) == kept
    assert best(kept, 0.75) == []


@pytest.mark.parametrize("index", [-1, 2, 1.0, True, "0", None])
def test_a_ranking_of_other_documents_is_refused(index: Any) -> None:
    with pytest.raises(ScoringError, match="a ranking must name each document once"):
        ranked(Ranking((RankedDocument(index, 0.5),)), TEXTS, [0, 1])
    with pytest.raises(ScoringError, match="once, it has 1"):
        ranked(Ranking((RankedDocument(1, 0.5), RankedDocument(1, 0.5))), TEXTS, [0, 1])


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "0.5", None])
def test_a_ranking_without_a_score_is_refused(score: Any) -> None:
    with pytest.raises(ScoringError, match="document 1"):
        ranked(Ranking((RankedDocument(1, score),)), TEXTS, [0, 1])


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


@pytest.mark.parametrize("keep", [_of_langchain, _of_llama_index])
async def test_progress_of_the_async_path_is_native(
    keep: Any, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()

    def blocks(*_: Any, **__: Any) -> Any:
        raise AssertionError("the event loop would wait")

    monkeypatch.setattr(engine, "score_pairs", blocks)

    assert len(await keep(engine, True, show_progress=True, top_n=5)) == 5


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("keep", [_of_langchain, _of_llama_index])
async def test_progress_needs_an_engine(keep: Any, is_async: bool) -> None:
    with pytest.raises(ValidationError, match=r"show_progress needs .*, got FakeReranker"):
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
