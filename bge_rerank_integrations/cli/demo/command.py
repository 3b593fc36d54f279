"""The command ``bge-rerank demo``: its steps, top to bottom."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from bge_rerank_integrations.cli.demo.tables import (
    after_table,
    before_table,
    closing_line,
    time_table,
)
from bge_rerank_integrations.cli.demo.two_stage import FirstStage, installed_frameworks, timed
from bge_rerank_integrations.cli.options import Model
from bge_rerank_integrations.cli.passages import python_reference
from bge_rerank_integrations.errors import InputError, MissingExtraError
from bge_rerank_integrations.first_stage import BM25Index
from bge_rerank_integrations.settings import BUILT_IN_MODEL

DEFAULT_QUESTION = "Can a list be used as a dictionary key?"


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
    # imported here: torch takes seconds, and --help does not need it
    from bge_rerank_integrations import RerankEngine

    frameworks, missing = installed_frameworks()
    if not frameworks:
        raise MissingExtraError("all")
    passages = python_reference()
    index, index_s = timed(lambda: BM25Index([passage.content for passage in passages]))
    first_stage = FirstStage(passages, index, candidates)
    if not first_stage.search(question):
        raise InputError("no passage of Python's reference shares a word with this question")
    engine, load_s = timed(lambda: RerankEngine.shared(model))
    # warm-up: the first pass compiles kernels, which is not part of a framework's time
    _, first_pass_s = timed(lambda: engine.rerank(question, [question]))
    runs = [framework.ask(question, first_stage, model, top_n) for framework in frameworks]

    console = Console(highlight=False)
    console.print(question, style="bold", markup=False)
    console.print(before_table(runs[0], passages, top_n))
    for run in runs:
        console.print(after_table(run, passages, brief=run is not runs[0]))
    steps = [
        ("load", load_s, f"{engine.model} on {engine.device}, {engine.dtype}"),
        ("first pass", first_pass_s, "1 pair"),
        ("BM25 index", index_s, f"{len(passages)} passages"),
    ]
    console.print(time_table(steps, runs))
    for error in missing:
        console.print(f"Not shown: {error}", style="yellow", markup=False, soft_wrap=True)
    if len(runs) > 1:
        one_engine = all(RerankEngine.shared(run.engine_config) == engine for run in runs)
        console.print(closing_line(runs, one_engine=one_engine))
