"""``bge-rerank eval``: quality and cost of rerankers on queries with judged documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from bge_rerank_integrations.cli.model_settings import model_settings
from bge_rerank_integrations.cli.mteb import evaluate_mteb
from bge_rerank_integrations.cli.tables import show_table
from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.evaluation.beir import read_beir, text_only, titled
from bge_rerank_integrations.evaluation.candidate_lists import read_candidate_lists
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.plot import save_plot
from bge_rerank_integrations.evaluation.report import Report, summarize
from bge_rerank_integrations.evaluation.runs import DEPTH, Run, bm25, rerank
from bge_rerank_integrations.evaluation.trec import read_run
from bge_rerank_integrations.settings import BUILT_IN_MODEL

BM25 = "bm25"
CORPUS = "corpus.jsonl"
_EXTRA = ("bm25s", "Stemmer", "ir_measures", "scipy", "matplotlib")


def evaluate(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="A folder in BEIR's layout (corpus.jsonl, queries.jsonl, and qrels/test.tsv or "
            "qrels.tsv), or a .jsonl file with 'query', 'candidates' and 'labels' on each line.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Hub id, folder or built-in model, and settings after commas: "
            "tiny,max_length=256,dtype=float32. Repeatable: every model is a row.",
            show_default=BUILT_IN_MODEL,
        ),
    ] = None,
    first_stage: Annotated[str, typer.Option(help="bm25, or a run file in TREC's format.")] = BM25,
    depth: Annotated[
        int, typer.Option(min=1, help="Documents that the first stage retrieves per query.")
    ] = DEPTH,
    top_n: Annotated[
        list[int] | None,
        typer.Option(
            "--top-n",
            "-k",
            min=1,
            help="Cutoff of recall: how many documents your application keeps. Repeatable.",
            show_default="10",
        ),
    ] = None,
    mteb: Annotated[
        list[str] | None,
        typer.Option(
            help="In place of the folder, a retrieval or reranking task of mteb (extra mteb). "
            "Repeatable; takes --model, --depth and --json.",
        ),
    ] = None,
    corpus: Annotated[str, typer.Option(help="Name of the corpus file.")] = CORPUS,
    without_titles: Annotated[
        bool, typer.Option("--without-titles", help="Search and rerank texts without titles.")
    ] = False,
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Measure a random sample, always the same one.",
            show_default="all",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot quality against time: a .png, .svg or .pdf file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document, with every query's values.")
    ] = False,
) -> None:
    """Measure rerankers: nDCG@10, MRR@10, recall and MAP before and after, wins and losses, time.

    With --mteb, each task's main score before and after. A pipe gets the tables one after the
    other, with tabs between the columns.
    """
    require_eval_extra()
    chosen = {name: model_settings(name) for name in model or [BUILT_IN_MODEL]}
    if mteb and source is None:
        folder_only = {
            "--first-stage": first_stage != BM25,
            "--top-n": bool(top_n),
            "--corpus": corpus != CORPUS,
            "--without-titles": without_titles,
            "--max-queries": max_queries is not None,
            "--plot": plot is not None,
        }
        _refuse(name for name, given in folder_only.items() if given)
        evaluate_mteb(mteb, chosen, depth, as_json=as_json)
        return
    if mteb or source is None:
        raise ConfigurationError("eval takes either a FOLDER or --mteb TASK")
    show_progress = sys.stderr.isatty()
    collection = read_collection(source, corpus, without_titles=without_titles)
    if max_queries is not None:
        collection = collection.sample(max_queries)
    runs = [_first_stage(first_stage, collection, depth, show_progress=show_progress)]
    # imported here: torch takes seconds, and --help or an invalid file does not need it
    from bge_rerank_integrations import RerankEngine

    for name, (base, settings) in chosen.items():
        # not shared: the next model may need this one's memory
        with RerankEngine(base, **settings) as engine:
            runs.append(rerank(name, engine, collection, runs[0], show_progress=show_progress))
    report = summarize(collection, runs, top_n or [10])
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False, indent=2))
    else:
        _show(report)
    # last: if the plot cannot be written, the report is already out
    if plot is not None:
        save_plot(report, plot)


def _refuse(names: Iterable[str]) -> None:
    if given := ", ".join(names):
        raise ConfigurationError(f"--mteb takes --model, --depth and --json, got {given}")


def require_eval_extra() -> None:
    """Check the imports of the report before an hour of scoring.

    :raises MissingExtraError: if a part of the extra ``eval`` is not installed.
    """
    if any(find_spec(name) is None for name in _EXTRA):
        raise MissingExtraError("eval")


def read_collection(source: Path, corpus: str, *, without_titles: bool) -> Collection:
    """Read judged queries: a folder in BEIR's layout, or candidate lists."""
    if source.is_file():
        return read_candidate_lists(source)
    return read_beir(source, corpus, text_only if without_titles else titled)


def _first_stage(given: str, collection: Collection, depth: int, *, show_progress: bool) -> Run:
    if given == BM25:
        return bm25(collection, depth, show_progress=show_progress)
    if collection.lists is not None:
        raise ConfigurationError(f"candidate lists take no run file, got {given!r}")
    return read_run(Path(given), collection, depth)


def _show(report: Report) -> None:
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    title = f"{report.collection}: {report.queries} queries, {report.documents} documents"
    show_table(title, report.rows())
    show_table("Query by query", report.comparison_rows())
