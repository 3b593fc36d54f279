"""``bge-rerank convert``: other people's folders to safetensors that load anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
