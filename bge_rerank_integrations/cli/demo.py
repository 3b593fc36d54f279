"""``bge-rerank demo``: one question, asked of Python's reference through each framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InputError, MissingExtraError
from ..evaluation.first_stage import BM25Index
from ..ranking import RankedDocument
from ..settings import BUILT_IN_MODEL, EngineConfig
from .options import Model
from .passages import ReferencePassage, python_reference

DEFAULT_QUESTION = "Can a list be used as a dictionary key?"
_LINE, _EXCERPT = 160, 230  # characters of a line, of the best passage

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that the first stage found.

    :param number: index of the passage in the reference.
    :param score: its BM25 score.
    """

    number: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What a framework's reranking component kept, best first, and how long it took.

    :param kept: indices and scores of the passages.
    """

    framework: str
    kept: tuple[RankedDocument, ...]
    seconds: float
    engine_config: EngineConfig


def demo(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="Anything about the Python language.")
    ] = DEFAULT_QUESTION,
    candidates: Annotated[
        int, typer.Option(min=1, help="Passages that BM25 retrieves for the reranker.")
    ] = 50,
    top_n: Annotated[int, typer.Option(min=1, help="Passages that the reranker keeps.")] = 5,
    model: Model = BUILT_IN_MODEL,
) -> None:
    """Search Python's own reference: BM25 finds candidates, the reranker puts the best first."""
    console = Console(highlight=False)
    passages = python_reference()
    hits = BM25Index([passage.content for passage in passages]).search(question, candidates)
    if not hits:
        raise InputError("no passage of Python's reference shares a word with this question")
    # before torch is imported, which takes seconds
    console.print(question, style="bold", markup=False)
    console.print(_before(hits, passages, top_n))
    with console.status("loading the model and reranking"):
        from .. import RerankEngine

        found = [Candidate(hit.index, hit.score, passages[hit.index].content) for hit in hits]
        engine, load_s = _timed(lambda: RerankEngine.shared(model))
        # warm-up: the first pass compiles kernels, which is not part of a framework's time
        engine.rerank(question, [question])
        runs, missing = ask_frameworks(question, found, model, top_n)
    ranks = {hit.index: rank for rank, hit in enumerate(hits, start=1)}
    best, *_ = runs
    console.print(_after(ranks, runs, passages))
    console.print(_excerpt(passages[best.kept[0].index]))
    for error in missing:
        console.print(f"Not shown: {error}", style="yellow", markup=False, soft_wrap=True)
    if len(runs) > 1:
        one_engine = all(RerankEngine.shared(run.engine_config) == engine for run in runs)
        console.print(agreement(runs, one_engine=one_engine))
    speeds = ", ".join(f"{run.framework} {run.seconds * 1000:,.0f} ms" for run in runs)
    console.print(
        f"{len(hits)} of {len(passages)} passages reranked by {engine.model} on {engine.device}, "
        f"{engine.dtype}: {speeds}; loading {load_s:.1f} s",
        markup=False,
    )
    console.print(conclusion(ranks, best, top_n))


def ask_llama_index(question: str, found: Sequence[Candidate], model: str, top_n: int) -> DemoRun:
    """What a ``RetrieverQueryEngine`` does between its retriever and its LLM."""
    from bge_rerank_integrations.llama_index import BGERerank  # isort: skip  # may be missing
    from llama_index.core.schema import NodeWithScore, TextNode

    reranker = BGERerank(model=model, top_n=top_n)
    nodes = [
        NodeWithScore(node=TextNode(id_=str(one.number), text=one.text), score=one.score)
        for one in found
    ]
    kept, seconds = _timed(lambda: reranker.postprocess_nodes(nodes, query_str=question))
    ranked = tuple(RankedDocument(int(node.node_id), node.get_score()) for node in kept)
    return DemoRun("LlamaIndex", ranked, seconds, reranker.engine_config)


def ask_langchain(question: str, found: Sequence[Candidate], model: str, top_n: int) -> DemoRun:
    """What a ``ContextualCompressionRetriever`` does behind its retriever."""
    from bge_rerank_integrations.langchain import BGERerank  # isort: skip  # may be missing
    from langchain_core.documents import Document

    reranker = BGERerank(model=model, top_n=top_n)
    documents = [Document(id=str(one.number), page_content=one.text) for one in found]
    kept, seconds = _timed(lambda: reranker.compress_documents(documents, question))
    ranked = tuple(
        RankedDocument(int(str(document.id)), document.metadata["relevance_score"])
        for document in kept
    )
    return DemoRun("LangChain", ranked, seconds, reranker.engine_config)


def ask_frameworks(
    question: str, found: Sequence[Candidate], model: str, top_n: int
) -> tuple[list[DemoRun], list[MissingExtraError]]:
    """Rerank through each installed framework.

    :returns: the runs, and an error for each framework that is missing.
    :raises MissingExtraError: if none is installed.
    """
    runs: list[DemoRun] = []
    missing: list[MissingExtraError] = []
    for ask in (ask_llama_index, ask_langchain):
        try:
            runs.append(ask(question, found, model, top_n))
        except MissingExtraError as error:
            missing.append(error)
    if not runs:
        raise MissingExtraError("all")
    return runs, missing


def agreement(runs: Sequence[DemoRun], *, one_engine: bool) -> Text:
    """Say whether the frameworks agree and share one engine."""
    one_ranking = len({tuple(kept.index for kept in run.kept) for run in runs}) == 1
    names = " and ".join(run.framework for run in runs)
    ranking = "the same ranking" if one_ranking else "different rankings"
    engine = "one shared engine" if one_engine else "separate engines"
    style = "green" if one_ranking and one_engine else "yellow"
    return Text(f"{names}: {ranking}, from {engine}.", style=style)


def conclusion(ranks: Mapping[int, int], run: DemoRun, top_n: int) -> Text:
    """Say what reranking changed for the reader of the best passages.

    :param ranks: of the passages by the first stage, from 1.
    """
    before = ranks[run.kept[0].index]
    if before == 1:
        return Text("BM25 and the reranker agree on the best passage.")
    missed = f": an LLM that reads {top_n} would have missed it" if before > top_n else ""
    return Text(f"The best passage stood at {before} and is 1 now{missed}.", style="bold green")


def _before(
    hits: Sequence[RankedDocument], passages: Sequence[ReferencePassage], top_n: int
) -> Table:
    """The first stage's best passages."""
    table = _table(f"BM25 alone: the first {min(top_n, len(hits))} of {len(hits)}", "rank")
    for rank, hit in enumerate(hits[:top_n], start=1):
        table.add_row(str(rank), _line(passages[hit.index]))
    return table


def _after(
    ranks: Mapping[int, int], runs: Sequence[DemoRun], passages: Sequence[ReferencePassage]
) -> Table:
    """The reranked passages: their scores in each framework, and their ranks in the first stage."""
    names = [run.framework for run in runs]
    table = _table("BM25, then BGERerank: the scores", "rank", *names, "BM25 rank")
    scores = [{kept.index: f"{kept.score:.4f}" for kept in run.kept} for run in runs]
    for rank, kept in enumerate(runs[0].kept, start=1):
        shown = (each.get(kept.index, "–") for each in scores)
        table.add_row(str(rank), *shown, str(ranks[kept.index]), _line(passages[kept.index]))
    return table


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=None, expand=True)
    for header in numbers:
        table.add_column(header, justify="right")
    table.add_column("passage", ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def _line(passage: ReferencePassage) -> Text:
    """The topic and the start of the text, on one line."""
    # Text: rich would read brackets in a passage as markup
    return Text.assemble((passage.topic, "bold"), ": ", passage.text[:_LINE])


def _excerpt(passage: ReferencePassage) -> Text:
    start = shorten(passage.text, _EXCERPT, placeholder=" …")
    return Text.assemble("1: ", (passage.topic, "bold"), f". {start}")


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start
