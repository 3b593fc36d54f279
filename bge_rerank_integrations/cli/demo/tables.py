"""How the demo looks."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from rich.table import Table
from rich.text import Text

from bge_rerank_integrations.cli.demo.two_stage import Run
from bge_rerank_integrations.cli.passages import Passage

_LONG, _SHORT = 180, 64  # characters of an excerpt
_TITLE = "bold cyan"


def before_table(run: Run, passages: Sequence[Passage], top_n: int) -> Table:
    """What the first stage alone would have shown, and where the reranker put it."""
    ranks = {kept.index: rank for rank, kept in enumerate(run.kept, start=1)}
    table = _table("BM25 alone", "BM25 rank", "rank after", "passage")
    for rank, number in enumerate(run.found[:top_n], start=1):
        table.add_row(
            str(rank), str(ranks.get(number, f">{top_n}")), _excerpt(passages[number], _SHORT)
        )
    return table


def after_table(run: Run, passages: Sequence[Passage], *, brief: bool) -> Table:
    """What the reranker kept, and where the first stage had it.

    :param brief: show less of the passages, where they were shown before.
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


def time_table(steps: Sequence[tuple[str, float, str]], runs: Sequence[Run]) -> Table:
    """How long everything took.

    :param steps: name, seconds and what was done, for what comes before the frameworks.
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


def closing_line(runs: Sequence[Run], *, one_engine: bool) -> Text:
    """Whether the frameworks agree, and whether one engine served them."""
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


def _excerpt(passage: Passage, characters: int) -> Text:
    """The topic, and the start of the text below it."""
    # Text: brackets in a passage are no markup
    start = shorten(passage.text, characters, placeholder=" …")
    return Text.assemble((passage.topic, "bold"), "\n", start)
