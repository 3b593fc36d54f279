"""The engine against other rerankers on the same weights and texts, in one run.

Every peer runs in a process of its own, in the environment that has it; rounds go through all of
them in turn, so that whatever else the machine does meets all alike. A ratio is the median over the
rounds. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.checkpoints import SHAPES, with_shape, with_weights
from benchmarks.machine import describe_machine
from benchmarks.peer_worker import PEERS
from benchmarks.texts import Pair, read_pairs

OURS = ("engine float32", "engine auto")


@dataclass
class Peer:
    """A worker process and what it has measured."""

    name: str
    process: subprocess.Popen[str]
    versions: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] | None = None

    def ask(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Let it score the pairs."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(pairs) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The worker's next line; empty if it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {}


def start_peer(
    name: str, model: str, pythons: Sequence[Path], temporary: str, core: int | None
) -> Peer | None:
    """Start a peer in the first environment that has all of its packages."""
    packages = PEERS[name][0]
    check = f"from importlib.metadata import version\nfor name in {packages!r}: version(name)"
    for python in pythons:
        if subprocess.run([python, "-c", check], capture_output=True).returncode == 0:
            break
    else:
        print(f"{name}: not installed in any environment (needs {', '.join(packages)})")
        return None
    arguments = [name, model, temporary, *([] if core is None else [str(core)])]
    with open(Path(temporary) / "workers.log", "a") as log:
        process = subprocess.Popen(
            [python, Path(__file__).with_name("peer_worker.py"), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    peer = Peer(name, process)
    if not (ready := peer.answer()):
        print(f"{name}: failed to start\n{Path(log.name).read_text()[-600:]}")
        return None
    peer.versions = ready["versions"]
    return peer


def run_rounds(peers: Sequence[Peer], pairs: Sequence[Pair], rounds: int, clock: str) -> None:
    """Let every peer score the pairs once a round; the first round warms up and gives scores."""
    for number in range(rounds + 1):
        # each round has texts of its own, so that no cache of token ids answers
        texts = [(query, f"{passage} ({number})") for query, passage in pairs]
        for peer in peers:
            answer = peer.ask(texts)
            if number:
                peer.seconds.append(answer["seconds"][clock])
            else:
                peer.scores = answer["scores"]
        print(f"round {number} of {rounds}", file=sys.stderr)


def summarize(peers: Sequence[Peer], pairs: int) -> list[dict[str, Any]]:
    """One row a peer: speed, and each of the engine's ratios to it."""
    exact = next((p.scores for p in peers if p.name == "sentence-transformers"), None)
    rows = []
    for peer in peers:
        row: dict[str, Any] = {
            "peer": peer.name,
            "pairs_per_s": round(pairs / median(peer.seconds), 1),
            "seconds": [round(s, 3) for s in peer.seconds],
            "versions": peer.versions,
        }
        for ours in peers:
            if ours.name in OURS:
                ratios = [p / o for p, o in zip(peer.seconds, ours.seconds, strict=True)]
                row[f"{ours.name} is faster by"] = round(median(ratios), 2)
        if exact and peer.scores:
            row["largest_difference"] = float(
                f"{np.abs(np.subtract(exact, peer.scores)).max():.1e}"
            )
        rows.append(row)
    return rows


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a table under the machine's description."""
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    lines = [
        f"{report['model']}, {report['pairs']} pairs, {report['rounds']} rounds, "
        f"seconds {report['seconds']}; {machine}",
        "",
        "| peer | pairs/s | float32 faster by | auto faster by | logits differ by | versions |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
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
    parser.add_argument("--only", action="append", choices=PEERS, help="peers to run")
    parser.add_argument("--output", type=Path, help="where to write the figures, .json")
    arguments = parser.parse_args()
    pythons = [Path(sys.executable), *(env / "bin" / "python" for env in arguments.env)]
    pairs = read_pairs(arguments.collection, arguments.pairs)
    clock = "wall" if arguments.one_core is None else "cpu"
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        if arguments.shape:
            model = with_shape(arguments.shape, arguments.model, Path(temporary))
        else:
            model = with_weights(arguments.model, Path(temporary))
        names = arguments.only or list(PEERS)
        started = [
            start_peer(name, str(model), pythons, temporary, arguments.one_core) for name in names
        ]
        peers = [peer for peer in started if peer is not None]
        for peer in peers:
            stack.callback(peer.process.wait)
            stack.callback(peer.process.terminate)
        run_rounds(peers, pairs, arguments.rounds, clock)
    report = {
        "model": arguments.shape or arguments.model.name,
        "texts": [folder.name for folder in arguments.collection] or "Python's reference",
        "pairs": len(pairs),
        "rounds": arguments.rounds,
        "seconds": "wall, all cores" if clock == "wall" else "of CPU time, on one core",
        "machine": describe_machine(),
        "rows": summarize(peers, len(pairs)),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(as_markdown(report))


if __name__ == "__main__":
    main()
