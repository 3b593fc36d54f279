"""The engine against other rerankers on the same weights and texts, in one run.

Every peer runs in a process of its own, in the environment that has it; rounds go through all of
them in turn, so that whatever else the machine does meets all alike. A ratio is the median over the
rounds, and the table has those of equal precision only. The texts are passages of one corpus, more
than two of the peers' batches: a peer sorts texts by length, so one batch alone, or a mix of short
and long corpora, would have it pad more than it does in use. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import with_shape, with_weights
from benchmarks.machine import computes_bfloat16, describe_machine, machine_name
from benchmarks.peer_processes import Launcher, run_rounds, summarize
from benchmarks.peer_worker import CPU_PEERS, precision_of
from benchmarks.shapes import SHAPES
from benchmarks.texts import read_pairs

OURS = tuple(name for name in CPU_PEERS if name.startswith("engine "))
# two of the peers' batches of 32
MIN_PAIRS = 64
# of a checkpoint's export, or of a round
_PATIENCE_S = 3600.0


def peers_of_this_processor() -> list[str]:
    """All peers, but those in bfloat16 only where the processor computes it."""
    return [name for name in CPU_PEERS if precision_of(name) != "bfloat16" or computes_bfloat16()]


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a table under the machine's description."""
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    lines = [
        f"{report['model']}, {report['pairs']} pairs of {report['texts']}, "
        f"{report['rounds']} rounds, seconds {report['seconds']}; {machine}",
        "",
        "| precision | peer | pairs/s | engine in this precision is faster by | logits differ by "
        "| versions |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "failure" in row:
            lines.append(f"| | {row['peer']} | {row['failure'][:80]!r} | | | |")
            continue
        precision = precision_of(row["peer"])
        cells = [
            precision,
            row["peer"],
            row["pairs_per_s"],
            row.get(f"engine {precision} is faster by", "–"),
            row.get("largest_difference", "–"),
            ", ".join(f"{name} {number}" for name, number in row["versions"].items()),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the peers that are installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="checkpoint; without weights: random ones")
    parser.add_argument(
        "--shape", choices=SHAPES, help="random weights in this shape; MODEL gives the tokenizer"
    )
    parser.add_argument("--collection", type=Path, help="BEIR folder; without: Python's reference")
    parser.add_argument("--pairs", type=int, default=72, help=f"at least {MIN_PAIRS}")
    parser.add_argument("--rounds", type=int, default=3)
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
    parser.add_argument("--name", help="of the file there; without: model and corpus")
    arguments = parser.parse_args(argv)
    pythons = [Path(sys.executable), *(env / "bin" / "python" for env in arguments.env)]
    pairs = read_pairs([arguments.collection] if arguments.collection else [], arguments.pairs)
    if len(pairs) < MIN_PAIRS:
        parser.error(
            f"expected at least {MIN_PAIRS} pairs of one corpus (two of the peers' batches), "
            f"got {len(pairs)}"
        )
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
            arguments.only or peers_of_this_processor(), at_once=False, patience_s=_PATIENCE_S
        )
        run_rounds(peers, pairs, arguments.rounds, clock, patience_s=_PATIENCE_S)
    texts = arguments.collection.name if arguments.collection else "Python's reference"
    report = {
        "model": arguments.shape or arguments.model.name,
        "weights": "its own" if model == arguments.model else "random",
        "texts": texts,
        "pairs": len(pairs),
        "rounds": arguments.rounds,
        "seconds": "wall, all cores" if clock == "wall" else "of CPU time, on one core",
        "machine": describe_machine(),
        "rows": summarize(
            peers, missing, len(pairs), ours=OURS, exact="sentence-transformers float32"
        ),
    }
    if arguments.results:
        folder = arguments.results / machine_name()
        folder.mkdir(parents=True, exist_ok=True)
        corpus = re.sub(r"\W+", "-", texts.lower())
        default = f"{report['model']}-{corpus}{'' if clock == 'wall' else '-one-core'}"
        (folder / f"{arguments.name or default}.json").write_text(
            json.dumps(report, indent=1) + "\n"
        )
    print(as_markdown(report))


if __name__ == "__main__":
    main()
