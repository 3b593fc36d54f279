"""Rerankers in processes of their own, asked in turn.

Rounds go through all peers, so that whatever else the machine does meets all alike. A peer that is
not installed, ends or falls silent leaves the run, and the reason is kept.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peer_worker import PEERS
from benchmarks.texts import Pair

# what is shown of a peer's log when it ends
_LOG_END = 1_500
# seconds of a round
_SLOW_S = 60.0


class PeerError(Exception):
    """A peer has ended, or says nothing."""


@dataclass
class Peer(AbstractContextManager["Peer"]):
    """A worker process and what it has measured."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    versions: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] | None = None
    failure: str | None = None
    is_slow: bool = False

    def ask(self, pairs: Sequence[Pair], patience_s: float) -> dict[str, Any]:
        """Let it score the pairs.

        :raises PeerError: if it ends, or does not answer within ``patience_s``.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(pairs) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise PeerError(self._last_words()) from error
        return self.answer(patience_s)

    def answer(self, patience_s: float) -> dict[str, Any]:
        """The worker's next line.

        :raises PeerError: as for :meth:`ask`.
        """
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(patience_s, 0))
        if not ready:
            raise PeerError(f"no answer within {max(patience_s, 0):.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(self._last_words())
        return dict(json.loads(line))

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _last_words(self) -> str:
        return f"ended: {self.log.read_text(errors='replace').strip()[-_LOG_END:]}"


@dataclass(frozen=True)
class Launcher:
    """How peers are started.

    :param model: the checkpoint's folder.
    :param pythons: interpreters; a peer runs in the first environment that has its packages.
    :param temporary: for logs and what peers write.
    :param device: where they compute.
    :param core: the only one to run on.
    :param stack: ends the processes.
    """

    model: Path
    pythons: Sequence[Path]
    temporary: Path
    device: str
    core: int | None
    stack: ExitStack

    def start(
        self, names: Sequence[str], *, at_once: bool, patience_s: float
    ) -> tuple[list[Peer], dict[str, str]]:
        """Start peers by their names in ``PEERS``.

        :param at_once: let them load side by side.
        :returns: those that are ready, and why the others are not.
        """
        started: list[Peer] = []
        missing: dict[str, str] = {}
        end = time.monotonic() + patience_s
        for name in names:
            python = self._python_for(name)
            if python is None:
                missing[name] = f"not installed in any environment: {', '.join(PEERS[name][0])}"
                continue
            started.append(self.stack.enter_context(self._launch(name, python)))
            if not at_once:
                _wait_until_ready(started[-1], end)
        for peer in started if at_once else ():
            _wait_until_ready(peer, end)
        missing |= {peer.name: peer.failure for peer in started if peer.failure is not None}
        return [peer for peer in started if peer.failure is None], missing

    def _python_for(self, name: str) -> Path | None:
        check = f"from importlib.metadata import version\nfor n in {PEERS[name][0]!r}: version(n)"
        for python in self.pythons:
            if subprocess.run([python, "-c", check], capture_output=True).returncode == 0:
                return python
        return None

    def _launch(self, name: str, python: Path) -> Peer:
        arguments = [name, str(self.model), str(self.temporary), self.device]
        if self.core is not None:
            arguments.append(str(self.core))
        log = self.temporary / f"{name}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [python, Path(__file__).with_name("peer_worker.py"), *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        return Peer(name, process, log)


def _wait_until_ready(peer: Peer, end: float) -> None:
    try:
        peer.versions = peer.answer(end - time.monotonic())["versions"]
    except PeerError as error:
        peer.failure = str(error)


def run_rounds(
    peers: Sequence[Peer], pairs: Sequence[Pair], rounds: int, clock: str, *, patience_s: float
) -> None:
    """Let every peer score the pairs once a round; the first round warms up and gives scores.

    A peer other than the engine that takes longer than ``_SLOW_S`` is timed in one round only: most
    of a run's time would go into what nobody would choose.

    :param clock: "wall" or "cpu".
    :param patience_s: after that many seconds no further round begins.
    """
    end = time.monotonic() + patience_s
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() > end:
            return
        # each round has texts of its own, so that no cache of token ids answers
        texts = [(query, f"{passage} ({number})") for query, passage in pairs]
        for peer in peers:
            if peer.failure is not None or (peer.is_slow and number > 1):
                continue
            try:
                answer = peer.ask(texts, patience_s)
            except PeerError as error:
                peer.failure = str(error)
                continue
            if number:
                peer.seconds.append(answer["seconds"][clock])
            else:
                peer.scores = answer["scores"]
                is_ours = peer.name.startswith("engine")
                peer.is_slow = answer["seconds"]["wall"] > _SLOW_S and not is_ours
        print(f"round {number} of {rounds}", file=sys.stderr)


def summarize(
    peers: Sequence[Peer],
    missing: Mapping[str, str],
    pairs: int,
    *,
    ours: Sequence[str],
    exact: str,
) -> list[dict[str, Any]]:
    """One row a peer: speed, and each of the engine's ratios to it.

    :param missing: why other peers did not run.
    :param ours: peers that are the engine.
    :param exact: the peer that the scores are compared to.
    """
    reference = next((p.scores for p in peers if p.name == exact), None)
    rows: list[dict[str, Any]] = []
    for peer in peers:
        if peer.failure is not None or not peer.seconds:
            rows.append({"peer": peer.name, "failure": peer.failure or "no time was left"})
            continue
        row: dict[str, Any] = {
            "peer": peer.name,
            "pairs_per_s": round(pairs / median(peer.seconds), 1),
            "seconds": [round(s, 4) for s in peer.seconds],
            "versions": peer.versions,
        }
        for own in peers:
            if own.name in ours and own.failure is None:
                ratios = [p / o for p, o in zip(peer.seconds, own.seconds, strict=False)]
                row[f"{own.name} is faster by"] = round(median(ratios), 2)
        if reference and peer.scores:
            row["largest_difference"] = float(
                f"{np.abs(np.subtract(reference, peer.scores)).max():.1e}"
            )
        rows.append(row)
    return rows + [{"peer": name, "failure": reason} for name, reason in missing.items()]
