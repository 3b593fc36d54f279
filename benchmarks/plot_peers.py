"""Draw the figures of ``peers.py``: pairs a second of each reranker.

python -m benchmarks.plot_peers results/bge-reranker-base.json results/peers.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main() -> None:
    """Read the first file and write the second."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = sorted(report["rows"], key=lambda row: row["pairs_per_s"])
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [row["peer"] for row in rows],
        [row["pairs_per_s"] for row in rows],
        color=["C0" if row["peer"].startswith("engine") else "0.7" for row in rows],
    )
    axes.bar_label(bars, padding=4, fmt="%.1f")
    machine = report["machine"]
    axes.set(
        xlabel="pairs per second",
        title=f"{report['model']}, {machine['cores']}-core {machine['cpu']}, "
        f"{report['pairs']} pairs, median of {report['rounds']} rounds",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
