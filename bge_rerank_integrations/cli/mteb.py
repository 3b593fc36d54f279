"""``bge-rerank eval --mteb``: rerankers in mteb's tasks."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer

from bge_rerank_integrations.cli.tables import show_table


def evaluate_mteb(
    tasks: Sequence[str],
    models: Mapping[str, tuple[str, dict[str, Any]]],
    depth: int,
    *,
    as_json: bool,
) -> None:
    """Measure rerankers in tasks, and print a table or JSON.

    :param tasks: mteb's names of them.
    :param models: name in the report → model and settings.
    """
    # imported here: torch and mteb take seconds, and --help does not need them
    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.evaluation.mteb_tasks import evaluate_task, first_stage, read_task

    show_progress = sys.stderr.isatty()
    read = [read_task(name) for name in tasks]
    before = [first_stage(task, depth, show_progress=show_progress) for task in read]
    scores = [score for score in before if score is not None]
    for name, (base, settings) in models.items():
        # not shared: the next model may need this one's memory
        with RerankEngine(base, **settings) as engine:
            for task in read:
                scores.append(evaluate_task(name, engine, task, show_progress=show_progress))
    # stable: a task's first stage stays before its rerankers
    scores.sort(key=lambda score: tasks.index(score.task))
    if as_json:
        rows = [asdict(score) for score in scores]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    header = ("task", "system", "measure", "score", "seconds")
    figures = [
        (one.task, one.system, one.measure, f"{one.score:.4f}", f"{one.seconds:.1f}")
        for one in scores
    ]
    show_table("mteb", iter([header, *figures]))
