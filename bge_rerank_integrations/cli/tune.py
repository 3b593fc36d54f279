"""``bge-rerank tune``: a reranker for one's own questions and documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..settings import BUILT_IN_MODEL
from .eval import show_table


def tune(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels), lines of "
            "FlagEmbedding's {'query', 'pos', 'neg'} (.jsonl), or a LlamaIndex "
            "EmbeddingQAFinetuneDataset (.json).",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the tuned model.")] = None,
    base: Annotated[
        str, typer.Option(help="The model to start from: an encoder with one output.")
    ] = BUILT_IN_MODEL,
    teacher: Annotated[
        str | None,
        typer.Option(help="A model whose logits are the labels; no judgments are needed then."),
    ] = None,
    first_stage: Annotated[
        Path | None,
        typer.Option(help="Rankings of all questions, a run file in TREC's format; else BM25."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="About how long to train, up to three epochs.")
    ] = None,
    epochs: Annotated[
        float, typer.Option(help="How often each pair comes, where --minutes is not given.")
    ] = 2.0,
    held_out: Annotated[
        float, typer.Option(help="Share of the questions that measure, and never train.")
    ] = 0.2,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair, at most.")] = 512,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Read and count the data, and train nothing.")
    ] = False,
) -> None:
    """Tune a reranker on your own documents, and measure it before and after.

    Questions that measure are held out of training. The same command resumes a killed run; ctrl-C
    keeps the best so far. If the tuned model is no better, --out holds the base, and the exit code
    is 1.
    """
    # imported here: --help needs no torch
    from ..tuning import tune as run
    from ..tuning.tune import prepare, read

    if check:
        collection = read(data, teacher=teacher, held_out=held_out)
        *_, counts = prepare(
            collection, teacher=teacher, first_stage=first_stage, held_out=held_out, seed=seed
        )
        typer.echo(
            f"{counts.documents} documents; {counts.training} questions train with {counts.pairs} "
            f"pairs, {counts.validation} choose between checkpoints, {counts.held_out} measure"
        )
        return
    if out is None:
        raise typer.BadParameter("is needed, unless --check", param_hint="--out")
    tuned = run(
        data,
        out,
        base=base,
        teacher=teacher,
        first_stage=first_stage,
        minutes=minutes,
        epochs=epochs,
        held_out=held_out,
        max_length=max_length,
        seed=seed,
        show_progress=sys.stderr.isatty(),
    )
    title = f"{tuned.report.queries} held-out questions"
    show_table(title, tuned.report.rows())
    show_table("Query by query", tuned.report.comparison_rows())
    if tuned.is_better:
        typer.echo(f"the tuned model is in {tuned.folder}", err=True)
        return
    typer.echo(
        f"the tuned model is no better than {base} on the held-out questions and was not kept: "
        f"{tuned.folder} holds {base}; tune with more questions",
        err=True,
    )
    raise typer.Exit(1)
