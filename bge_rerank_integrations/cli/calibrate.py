"""``bge-rerank calibrate``: scores that are probabilities, from judged queries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..evaluation.calibrating import calibrate as fit
from ..evaluation.calibrating import logits_of
from ..evaluation.runs import bm25
from ..settings import BUILT_IN_MODEL
from .eval import MaxQueries, read_collection, require_eval_extra
from .options import model_settings

# as many candidates as an application reranks: relevance is rarer among more of them
_DEPTH = 50


def calibrate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Judged queries, as 'bge-rerank eval' reads them: a folder in BEIR's layout, or a "
            ".jsonl file of candidate lists.",
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Hub id, folder or built-in model, and settings after commas.")
    ] = BUILT_IN_MODEL,
    output: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path(
        "calibration.json"
    ),
    depth: Annotated[
        int, typer.Option(min=1, help="Documents a query: as many as your application reranks.")
    ] = _DEPTH,
    max_queries: MaxQueries = None,
) -> None:
    """Fit scale and shift of a model's logits, so that a score of 0.5 means: half are relevant.

    The file goes where settings go: RerankEngine(model, calibration="calibration.json"). What is
    not judged counts as irrelevant.
    """
    require_eval_extra()
    base, settings = model_settings(model)
    if settings.get("calibration") is not None:
        raise ConfigurationError("the model to calibrate must have no calibration yet")
    collection = read_collection(source, max_queries)
    show_progress = sys.stderr.isatty()
    candidates = bm25(collection, depth, show_progress=show_progress)
    # imported here: torch takes seconds, and --help or an invalid file does not need it
    from .. import RerankEngine

    with RerankEngine(base, **settings) as engine:
        logits = logits_of(engine, collection, candidates, show_progress=show_progress)
        fitted = fit(base, collection, candidates, logits, engine.weights_digest)
    fitted.calibration.save(output, fitted.about())
    typer.echo(
        f"{output}: scale {fitted.calibration.scale:.3f}, shift {fitted.calibration.shift:.3f}, "
        f"from {fitted.pairs} pairs of {fitted.queries} queries ({fitted.relevant} relevant)"
    )
    typer.echo(
        f"expected calibration error on {fitted.held_out} queries held out of a fit: "
        f"{fitted.before:.3f} before, {fitted.after:.3f} after"
    )
