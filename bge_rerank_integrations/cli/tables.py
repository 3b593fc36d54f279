"""A table for people; a pipe gets its rows with tabs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


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
