"""The commands of ``bge-rerank``, and how their errors are shown."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from .. import ConfigurationError, RerankError, __version__
from .calibrate import calibrate
from .demo import demo
from .eval import evaluate
from .models import convert, models
from .options import Command
from .rerank import rerank
from .serve import serve
from .tune import tune


class _Commands(TyperGroup):
    """Turns this package's errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RerankError as error:
            message = " ".join(f"error: {error}".split())
            Console(stderr=True).print(Text(message, style="bold red"), soft_wrap=True)
            # an invalid setting came from the command line: a usage error
            raise typer.Exit(2 if isinstance(error, ConfigurationError) else 1) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bge-rerank {__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Commands, no_args_is_help=True)
app.command(cls=Command)(demo)
app.command(cls=Command)(rerank)
app.command(cls=Command)(serve)
app.command("eval", cls=Command)(evaluate)
app.command(cls=Command)(calibrate)
app.command(cls=Command)(convert)
app.command(cls=Command)(models)
app.command(cls=Command)(tune)


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Rerank passages with BGE cross-encoders.

    bge-rerank demo "Why can't a list be a dictionary key?"
    bge-rerank rerank "how do I undo a commit" notes.txt docs.jsonl --top-n 5
    git log --format=%s | bge-rerank rerank "performance work" - --json
    bge-rerank serve --model tiny
    """
