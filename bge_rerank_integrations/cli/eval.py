"""``bge-rerank eval``: quality and cost of rerankers on queries with judged documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ConfigurationError, InputError, MissingExtraError
from ..evaluation.collection import Collection, read_beir, read_candidate_lists
from ..evaluation.report import Report, summarize
from ..evaluation.runs import DEPTH, Run, bm25, fuse, read_run, rerank
from ..settings import BUILT_IN_MODEL
from .options import model_settings

BM25 = "bm25"
_EXTRA = ("bm25s", "Stemmer", "ir_measures", "scipy")

MaxQueries = Annotated[
    int | None,
    typer.Option(min=1, help="Use a random sample, always the same one.", show_default="all"),
]


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A folder in BEIR's layout (corpus.jsonl, queries.jsonl, and qrels/test.tsv or "
            "qrels.tsv), or a .jsonl file with 'query', 'candidates' and 'labels' on each line.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Hub id, folder or built-in model, and settings after commas: "
            "tiny,max_length=256,dtype=float32. Repeatable: every model is a row.",
            show_default=BUILT_IN_MODEL,
        ),
    ] = None,
    first_stage: Annotated[
        list[str] | None,
        typer.Option(
            help="bm25, or a run file in TREC's format. Repeatable: several are fused by "
            "reciprocal ranks.",
            show_default=BM25,
        ),
    ] = None,
    retrieval_weight: Annotated[
        float,
        typer.Option(min=0, max=1, help="Weight of the first stage in the blended order."),
    ] = 0.5,
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
    max_queries: MaxQueries = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document, with every query's values.")
    ] = False,
) -> None:
    """Measure rerankers: nDCG@10, MRR@10, recall and MAP before and after, wins and losses, time.

    A pipe gets the tables one after the other, with tabs between the columns.
    """
    require_eval_extra()
    chosen = {name: model_settings(name) for name in model or [BUILT_IN_MODEL]}
    show_progress = sys.stderr.isatty()
    collection = read_collection(source, max_queries)
    stages = [
        _first_stage(given, collection, depth, show_progress=show_progress)
        for given in first_stage or [BM25]
    ]
    runs = stages if len(stages) == 1 else [fuse(stages, depth)]
    # imported here: torch takes seconds, and --help or an invalid file does not need it
    from .. import RerankEngine

    for name, (base, settings) in chosen.items():
        # not shared: the next model may need this one's memory
        with RerankEngine(base, **settings) as engine:
            runs.append(rerank(name, engine, collection, runs[0], show_progress=show_progress))
    report = summarize(collection, runs, top_n or [10], retrieval_weight)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False, indent=2))
    else:
        _show(report)


def require_eval_extra() -> None:
    """Check the imports of the report before an hour of scoring.

    :raises MissingExtraError: if a part of the extra ``eval`` is not installed.
    """
    if any(find_spec(name) is None for name in _EXTRA):
        raise MissingExtraError("eval")


def read_collection(source: Path, max_queries: int | None) -> Collection:
    """Read judged queries, or a sample: a folder in BEIR's layout, or candidate lists.

    :raises InputError: naming the file, and the line where one is wrong.
    """
    if not source.exists():
        raise InputError(
            f"{source}: there is no such folder or file; expected a folder with corpus.jsonl, "
            "queries.jsonl and qrels.tsv, or a .jsonl file with query, candidates and labels"
        )
    collection = read_candidate_lists(source) if source.is_file() else read_beir(source)
    return collection if max_queries is None else collection.sample(max_queries)


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
    show_table("How many candidates", report.depth_rows())


def show_table(title: str, rows: Iterator[Sequence[str]]) -> None:
    """Print a table with a title to a terminal; rows with tabs and an empty line to a pipe.

    :param rows: the headers, then the others.
    """
    console = Console()
    if console.is_terminal:
        console.print(_table(title, rows))
    else:
        for row in rows:
            typer.echo("\t".join(row))
        typer.echo()


def _table(title: str, rows: Iterator[Sequence[str]]) -> Table:
    first, *others = next(rows)
    table = Table(first, title=title, title_justify="left", title_style="bold cyan", box=None)
    for header in others:
        table.add_column(header, justify="right", overflow="fold")
    for row in rows:
        # Text: rich would read brackets in a folder's name as markup
        table.add_row(*map(Text, row))
    return table
