"""How the demo looks."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bge_rerank_integrations.cli.passages import Passage
from bge_rerank_integrations.cli.two_stage import Run

if TYPE_CHECKING:
    from bge_rerank_integrations import RerankEngine

_EXCERPT_CHARACTERS = 150


def before_table(run: Run, passages: Sequence[Passage], top_n: int) -> Table:
    """What the first stage alone would have shown, and where the reranker put it."""
    ranks = {kept.index: rank for rank, kept in enumerate(run.kept, start=1)}
    table = _table("BM25 alone", "BM25 rank", "rank after", "passage")
    for rank, number in enumerate(run.found[:top_n], start=1):
        table.add_row(str(rank), str(ranks.get(number, f">{top_n}")), _excerpt(passages[number]))
    return table


def after_table(run: Run, passages: Sequence[Passage]) -> Table:
    """What the reranker kept, and where the first stage had it."""
    ranks = {number: rank for rank, number in enumerate(run.found, start=1)}
    table = _table(f"{run.framework}: {run.component}", "rank", "BM25 rank", "score", "passage")
    for rank, kept in enumerate(run.kept, start=1):
        table.add_row(
            str(rank),
            str(ranks[kept.index]),
            f"{kept.score:.4f}",
            _excerpt(passages[kept.index]),
        )
    return table


def timings(
    engine: RerankEngine,
    load_s: float,
    first_pass_s: float,
    passages: int,
    index_s: float,
    runs: Sequence[Run],
) -> Table:
    """Seconds of each step, and pairs per second of each framework's reranking."""
    table = Table("step", "time", "what", box=None, title="Time", title_justify="left")
    what = f"{engine.model} on {engine.device}, {engine.dtype}"
    table.add_row("load", f"{load_s:.2f} s", Text(what))
    table.add_row("first pass", f"{first_pass_s * 1000:.0f} ms", "1 pair")
    table.add_row("index", f"{index_s * 1000:.0f} ms", f"{passages} passages, BM25")
    for run in runs:
        pairs = len(run.found)
        table.add_row(
            f"{run.framework}: retrieve", f"{run.retrieve_s * 1000:.1f} ms", f"{pairs} candidates"
        )
        table.add_row(
            f"{run.framework}: rerank",
            f"{run.rerank_s * 1000:.1f} ms",
            f"{pairs / run.rerank_s:.0f} pairs/s",
        )
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
    table = Table(title=title, title_justify="left", title_style="bold cyan")
    for header in headers:
        table.add_column(header, justify="left" if header == "passage" else "right")
    return table


def _excerpt(passage: Passage) -> Text:
    """The topic, and the start of the text below it."""
    # Text: brackets in a passage are no markup
    start = shorten(passage.text, _EXCERPT_CHARACTERS, placeholder=" …")
    return Text.assemble((passage.topic, "bold"), "\n", start)
