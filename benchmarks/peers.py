"""The engine against other rerankers on the same weights and texts, in one run.

Every peer runs in a process of its own, in the environment that has it; rounds go through all of
them in turn, so that whatever else the machine does meets all alike. A ratio is the median over the
rounds. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import with_shape, with_weights
from benchmarks.machine import describe_machine, machine_name
from benchmarks.peer_processes import Launcher, run_rounds, summarize
from benchmarks.peer_worker import CPU_PEERS
from benchmarks.shapes import SHAPES
from benchmarks.texts import read_pairs

OURS = ("engine float32", "engine int8", "engine auto")
# of a checkpoint's export, or of a round
_PATIENCE_S = 3600.0


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a table under the machine's description."""
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    lines = [
        f"{report['model']}, {report['pairs']} pairs, {report['rounds']} rounds, "
        f"seconds {report['seconds']}; {machine}",
        "",
        "| peer | pairs/s | float32 faster by | int8 faster by | auto faster by | logits differ by "
        "| versions |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "failure" in row:
            lines.append(f"| {row['peer']} | {row['failure'][:80]!r} | | | | | |")
            continue
        ratios = [row.get(f"{ours} is faster by", "–") for ours in OURS]
        versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        cells = [row["peer"], row["pairs_per_s"], *ratios, row.get("largest_difference", "–")]
        lines.append(f"| {' | '.join(map(str, cells))} | {versions} |")
    return "\n".join(lines)


def main() -> None:
    """Run the peers that are installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="checkpoint; without weights: random ones")
    parser.add_argument(
        "--shape", choices=SHAPES, help="random weights in this shape; MODEL gives the tokenizer"
    )
    parser.add_argument("--collection", type=Path, action="append", default=[], help="BEIR folder")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--env", type=Path, action="append", default=[], help="environment's folder"
    )
    parser.add_argument(
        "--one-core",
        type=int,
        metavar="CORE",
        help="run on this core alone and count CPU seconds: for a machine that others use as well",
    )
    parser.add_argument(
        "--exports", type=Path, help="keep exported formats here, and take those of earlier runs"
    )
    parser.add_argument("--only", action="append", choices=CPU_PEERS, help="peers to run")
    parser.add_argument(
        "--results", type=Path, help="write the figures to this folder, in one of the processor's"
    )
    arguments = parser.parse_args()
    pythons = [Path(sys.executable), *(env / "bin" / "python" for env in arguments.env)]
    pairs = read_pairs(arguments.collection, arguments.pairs)
    clock = "wall" if arguments.one_core is None else "cpu"
    with ExitStack() as stack:
        temporary = arguments.exports or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        temporary.mkdir(exist_ok=True)
        if arguments.shape:
            model = with_shape(arguments.shape, arguments.model, temporary)
        else:
            model = with_weights(arguments.model, temporary)
        environments = Launcher(model, pythons, temporary, "cpu", arguments.one_core, stack)
        peers, missing = environments.start(
            arguments.only or CPU_PEERS, at_once=False, patience_s=_PATIENCE_S
        )
        run_rounds(peers, pairs, arguments.rounds, clock, patience_s=_PATIENCE_S)
    report = {
        "model": arguments.shape or arguments.model.name,
        "texts": [folder.name for folder in arguments.collection] or "Python's reference",
        "pairs": len(pairs),
        "rounds": arguments.rounds,
        "seconds": "wall, all cores" if clock == "wall" else "of CPU time, on one core",
        "machine": describe_machine(),
        "rows": summarize(peers, missing, len(pairs), ours=OURS, exact="sentence-transformers"),
    }
    if arguments.results:
        folder = arguments.results / machine_name()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{report['model']}{'' if clock == 'wall' else '-one-core'}.json"
        (folder / name).write_text(json.dumps(report, indent=1) + "\n")
    print(as_markdown(report))


if __name__ == "__main__":
    main()
