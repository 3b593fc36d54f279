"""``bge-rerank models`` and ``convert``: the rerankers that run here, and making others run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..catalog import CATALOG, HEADERS, rows
from ..settings import EngineConfig, description_of


def models(
    model: Annotated[
        str | None, typer.Argument(help="Show how this model scores, and what proves it.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help=description_of("recipe"))] = None,
) -> None:
    """List the rerankers that run here: size, languages, license, published quality.

    Or say of one model, by hub id or folder, which recipe it is scored by and which keys of its
    files are obeyed, without its weights.
    """
    if model is not None:
        _show_recipe(EngineConfig(model, recipe=recipe))
        return
    console = Console()
    if not console.is_terminal:
        for row in (HEADERS, *rows()):
            typer.echo("\t".join(row))
        return
    for entry in CATALOG:
        # an id is copied: it has a line of its own, which no width breaks
        console.print(Text(entry.model, "bold"), soft_wrap=True)
        facts = (entry.languages, f"{entry.memory_gb:.2g} GB", entry.license, entry.quality)
        console.print(Padding(f"{'; '.join(facts)}: {entry.choose_it}", (0, 0, 0, 4)))


def _show_recipe(config: EngineConfig) -> None:
    # torch takes seconds to import
    from ..engine.loading.checkpoint import open_checkpoint
    from ..engine.loading.model import obeyed
    from ..engine.loading.proofs import read_recipe

    checkpoint = open_checkpoint(config, with_weights=False)
    found = read_recipe(config, checkpoint)
    for name, value in (*found.described(), *obeyed(checkpoint, found)):
        typer.echo(f"{name}\t{value}")


def convert(
    folder: Annotated[Path, typer.Argument(help="A model's folder, or a LoRA adapter's.")],
    out: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
) -> None:
    """Write a model in safetensors: from pytorch_model.bin, a trainer's wrapper or a LoRA adapter.

    The result loads here and in transformers. Pickles are read without running code in them.
    """
    # torch takes seconds to import
    from ..engine.loading.conversion import convert as run

    for line in run(folder, out):
        typer.echo(line)
