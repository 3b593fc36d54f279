"""``bge-rerank models``: the rerankers that run here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bge_rerank_integrations.catalog import HEADERS, markdown, rows


def models(
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the table of the README.")
    ] = False,
) -> None:
    """List the rerankers that run here: size, languages, license, published quality.

    Any other checkpoint of these architectures runs too.
    """
    if as_markdown:
        typer.echo(markdown())
        return
    console = Console()
    if not console.is_terminal:
        for row in (HEADERS, *rows()):
            typer.echo("\t".join(row))
        return
    table = Table(*HEADERS, box=None)
    for row in rows():
        table.add_row(*row)
    console.print(table)
