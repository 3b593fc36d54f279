"""``bge-rerank rerank``: the passages of files, best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bge_rerank_integrations.cli.inputs import FilePassage, read_passages
from bge_rerank_integrations.cli.options import Model, with_settings
from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.ranking import Ranking, Reranker
from bge_rerank_integrations.settings import BUILT_IN_MODEL

if TYPE_CHECKING:
    from bge_rerank_integrations import RerankEngine


@with_settings(but=("normalize",))
def rerank(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="What the passages are ranked for.")
    ] = "",
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Text files with a passage on each line, .jsonl files with 'text' (and 'id', "
            "'title') on each line, or - for standard input.",
        ),
    ] = None,
    top_n: Annotated[
        int | None, typer.Option(min=1, help="Keep this many passages.", show_default="all")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(help="Keep passages with at least this score.", show_default="none"),
    ] = None,
    model: Model = BUILT_IN_MODEL,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show logits instead of scores from 0 to 1.")
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Read every file as JSON Lines, whatever its name.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
    bulk: Annotated[
        Path | None,
        typer.Option(
            help="Instead of QUERY and FILE: score every row of this .jsonl or .parquet file, "
            "which has a query and a document each.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where the rows of --bulk go with their scores: a .jsonl file, or a folder for "
            "Parquet. What is there already is not scored again.",
            show_default=False,
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Rank the passages of files by relevance to QUERY.

    A pipe gets one passage per line: score, file:line and text, with tabs between them.
    """
    _check_use(bool(files), bulk, output)
    # imported here: torch takes seconds, and --help does not need it
    from bge_rerank_integrations import RerankEngine

    def load() -> RerankEngine:
        return RerankEngine.shared(model, normalize=not raw, **settings)

    if bulk is not None and output is not None:
        _score_rows(load(), bulk, output)
        return
    passages = read_passages(files or (), jsonl=jsonl)
    ranking = _rank(load(), query, passages, top_n, score_threshold)
    if truncated := _truncated(ranking):
        typer.echo(f"truncated: {truncated}", err=True)
    if as_json:
        document = _document(query, passages, ranking)
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(passages, ranking)


def _check_use(has_files: bool, bulk: Path | None, output: Path | None) -> None:
    if bulk is None and not has_files:
        raise typer.BadParameter("QUERY and FILE are needed, or --bulk")
    if (bulk is None) != (output is None) or (bulk is not None and has_files):
        raise typer.BadParameter("--bulk and --output belong together, without QUERY and FILE")


def _score_rows(engine: RerankEngine, source: Path, target: Path) -> None:
    from bge_rerank_integrations.bulk import score_file

    scored = score_file(engine, source, target, show_progress=True)
    typer.echo(f"{scored} rows scored; {target} is complete", err=True)


def _rank(
    reranker: Reranker,
    query: str,
    passages: Sequence[FilePassage],
    top_n: int | None,
    score_threshold: float | None,
) -> Ranking:
    contents = [passage.content for passage in passages]
    try:
        return reranker.rerank(query, contents, top_n, score_threshold)
    except InputError as error:
        where = "QUERY" if error.index is None else passages[error.index].place
        raise InputError(f"{where}: {error}", error.index) from error


def _truncated(ranking: Ranking) -> str:
    """What the model did not read to its end."""
    count = ranking.truncated_documents
    passages = [f"{count} passage{'s' * (count > 1)}"] if count else []
    return " and ".join([*passages, *(["the query"] * ranking.query_truncated)])


def _document(query: str, passages: Sequence[FilePassage], ranking: Ranking) -> dict[str, Any]:
    return {
        "query": query,
        "model": ranking.model,
        "results": [
            {"index": kept.index, "score": kept.score, **_described(passages[kept.index])}
            for kept in ranking
        ],
        "total_tokens": ranking.total_tokens,
    }


def _described(passage: FilePassage) -> dict[str, Any]:
    place = passage.place
    described: dict[str, Any] = {"text": passage.text, "file": place.file, "line": place.line}
    if passage.id is not None:
        described["id"] = passage.id
    if passage.title:
        described["title"] = passage.title
    return described


def _show(passages: Sequence[FilePassage], ranking: Ranking) -> None:
    console = Console()
    rows = [
        (
            f"{kept.score:.4f}",
            str(passages[kept.index].place),
            " ".join(passages[kept.index].content.split()),
        )
        for kept in ranking
    ]
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table("rank", "score", "where", "passage", box=None)
    for rank, (score, place, content) in enumerate(rows, start=1):
        # Text: rich would read brackets in a passage as markup
        table.add_row(str(rank), score, Text(place, style="dim"), Text(content))
    console.print(table)
