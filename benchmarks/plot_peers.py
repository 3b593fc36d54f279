"""Draw the figures of ``peers.py``: pairs a second of each reranker, by precision.

python -m benchmarks.plot_peers RESULTS.json [MORE.json …] PICTURE.png

Several files are runs with other peers; a reranker that is in several is drawn from the first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.peer_worker import precision_of

_COLORS = {"float32": "C0", "bfloat16": "C1", "int8": "C2"}


def main() -> None:
    """Read all files but the last, and write that."""
    *sources, picture = sys.argv[1:]
    reports = [json.loads(Path(source).read_text(encoding="utf-8")) for source in sources]
    measured: dict[str, dict[str, Any]] = {}
    for row in (row for report in reports for row in report["rows"] if "failure" not in row):
        measured.setdefault(row["peer"], row)
    # only bars of one color compare like with like
    order = list(_COLORS)
    rows = sorted(
        measured.values(),
        key=lambda row: (-order.index(precision_of(row["peer"])), row["pairs_per_s"]),
    )
    figure = Figure(figsize=(8, 0.35 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [row["peer"] for row in rows],
        [row["pairs_per_s"] for row in rows],
        color=[_COLORS[precision_of(row["peer"])] for row in rows],
        edgecolor=["black" if row["peer"].startswith("engine") else "none" for row in rows],
    )
    for bar, row in zip(bars, rows, strict=True):
        bar.set_alpha(1.0 if row["peer"].startswith("engine") else 0.5)
    axes.bar_label(bars, padding=4, fmt="%.1f")
    axes.legend(
        handles=[Patch(color=color, label=name) for name, color in _COLORS.items()],
        loc="lower right",
    )
    report, machine = reports[0], reports[0]["machine"]
    axes.set(
        xlabel="pairs per second",
        title=f"{report['model']}, {report['weights']} weights, {machine['cores']}-core "
        f"{machine['cpu']},\n{report['pairs']} passages of {report['texts']}, median of the rounds",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
