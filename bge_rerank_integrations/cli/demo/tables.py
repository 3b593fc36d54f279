"""The demo's tables."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from rich.table import Table
from rich.text import Text

from bge_rerank_integrations.cli.demo.two_stage import DemoRun
from bge_rerank_integrations.cli.passages import ReferencePassage

_LONG, _SHORT = 180, 64  # characters of an excerpt
_TITLE = "bold cyan"


def before_table(run: DemoRun, passages: Sequence[ReferencePassage], top_n: int) -> Table:
    """Show the first stage's best passages, and their ranks after reranking."""
    ranks = {kept.index: rank for rank, kept in enumerate(run.kept, start=1)}
    table = _table("BM25 alone", "BM25 rank", "rank after", "passage")
    for rank, number in enumerate(run.found[:top_n], start=1):
        table.add_row(
            str(rank), str(ranks.get(number, f">{top_n}")), _excerpt(passages[number], _SHORT)
        )
    return table


def after_table(run: DemoRun, passages: Sequence[ReferencePassage], *, brief: bool) -> Table:
    """Show the reranked passages, and their ranks in the first stage.

    :param brief: shorten the excerpts.
    """
    ranks = {number: rank for rank, number in enumerate(run.found, start=1)}
    table = _table(f"{run.framework}: {run.component}", "rank", "BM25 rank", "score", "passage")
    for rank, kept in enumerate(run.kept, start=1):
        table.add_row(
            str(rank),
            str(ranks[kept.index]),
            f"{kept.score:.4f}",
            _excerpt(passages[kept.index], _SHORT if brief else _LONG),
        )
    return table


def time_table(steps: Sequence[tuple[str, float, str]], runs: Sequence[DemoRun]) -> Table:
    """Show the time of every step.

    :param steps: name, seconds and description of each step before the frameworks.
    """
    table = Table("step", "what", title="Time", title_justify="left", title_style=_TITLE, box=None)
    table.add_column("time", justify="right")
    for name, seconds, what in steps:
        table.add_row(name, Text(what), _milliseconds(seconds))
    for run in runs:
        pairs = len(run.found)
        speed = f"{pairs} pairs, {pairs / run.rerank_s:.0f} pairs/s"
        table.add_row(f"{run.framework}: retrieve", "BM25 search", _milliseconds(run.retrieve_s))
        table.add_row(f"{run.framework}: rerank", speed, _milliseconds(run.rerank_s))
    return table


def closing_line(runs: Sequence[DemoRun], *, one_engine: bool) -> Text:
    """Say whether the frameworks agree and share one engine."""
    one_ranking = len({tuple(kept.index for kept in run.kept) for run in runs}) == 1
    names = " and ".join(run.framework for run in runs)
    ranking = "the same ranking" if one_ranking else "different rankings"
    engine = "one shared engine" if one_engine else "separate engines"
    style = "green" if one_ranking and one_engine else "yellow"
    return Text(f"{names}: {ranking}, from {engine}.", style=style)


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style=_TITLE)
    for header in headers:
        table.add_column(header, justify="left" if header == "passage" else "right")
    return table


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _excerpt(passage: ReferencePassage, characters: int) -> Text:
    """The topic, and below it the start of the text."""
    # Text: rich would read brackets in a passage as markup
    start = shorten(passage.text, characters, placeholder=" …")
    return Text.assemble((passage.topic, "bold"), "\n", start)
