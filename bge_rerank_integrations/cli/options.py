"""Options that several commands have, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Hub id, folder, or the built-in English model.")]
MaxLength = Annotated[int, typer.Option(help="Tokens of query and passage together, at most.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or xpu.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
