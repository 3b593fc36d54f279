"""Plot quality against time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.evaluation.measures import PRIMARY
from bge_rerank_integrations.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(report: Report, axes: Axes) -> None:
    """Draw nDCG@10 against milliseconds per query into ``axes``.

    The first stage is a horizontal line.
    """
    before, *rerankers = report.systems
    height = before.means[PRIMARY]
    axes.axhline(height, color="0.6", linestyle="--", linewidth=1)
    axes.annotate(
        f"{before.name} {height:.3f}",
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color="0.4",
    )
    times = [system.mean_ms or 0.0 for system in rerankers]
    for number, (system, ms) in enumerate(zip(rerankers, times, strict=True)):
        point = (ms, system.means[PRIMARY])
        axes.scatter(*point, s=45, color=f"C{number}", zorder=3)
        # toward the middle, so that a long name fits
        side = "right" if ms > max(times) / 2 else "left"
        axes.annotate(
            f"{system.name} {point[1]:.3f}",
            point,
            xytext=(-8 if side == "right" else 8, 5),
            textcoords="offset points",
            ha=side,
            color=f"C{number}",
        )
    axes.margins(0.15)
    axes.set_xlim(left=0)
    axes.set(xlabel="milliseconds per query", ylabel=PRIMARY, title=report.collection)
    axes.spines[["top", "right"]].set_visible(False)


def save_plot(report: Report, path: Path) -> None:
    """Save the plot; the suffix of ``path`` selects the format.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises ConfigurationError: if the file cannot be written, or its format is unknown.
    """
    try:
        # not pyplot: it needs a display
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("eval") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw(report, figure.subplots())
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
