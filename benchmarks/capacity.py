"""What one, eight and 64 replicas serve, and how long callers wait, from one measured replica.

A replica is described by two figures: the time of an empty forward pass and the time of one more
pair in it. Requests come at random times (Poisson), go to the less busy of two replicas drawn at
random (as Ray Serve routes), and share passes as the engine shares them: a pass takes pairs of all
waiting requests in turn, up to the token budget.

``capacity_check.py`` measures a replica and compares this simulation with it. A throughput that
someone else measured can be given too; the time of an empty pass is then an assumption::

    python -m benchmarks.capacity --replica replica.json
    python -m benchmarks.capacity --pairs-per-s 2858 --pass-ms 5
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

REPLICAS = (1, 8, 64)
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95)
# of what a replica serves at most: room for bursts
_PRICED_LOAD = 0.7


@dataclass(frozen=True)
class Replica:
    """What was measured of one replica.

    :param pass_s: seconds of a forward pass, whatever is in it.
    :param pair_s: seconds of each pair in it.
    :param pass_pairs: pairs in a pass, at most.
    """

    pass_s: float
    pair_s: float
    pass_pairs: int

    @classmethod
    def of(cls, pairs_per_s: float, pass_pairs: int, *, pass_s: float) -> Replica:
        """The replica that serves this many pairs a second when its passes are full.

        :raises ValueError: if empty passes alone would take longer.
        """
        pair_s = 1 / pairs_per_s - pass_s / pass_pairs
        if pair_s <= 0:
            raise ValueError(
                f"{pairs_per_s} pairs/s leave no time for pairs in passes of {pass_pairs}, each "
                f"{pass_s} s when empty"
            )
        return cls(pass_s, pair_s, pass_pairs)

    @property
    def pairs_per_s(self) -> float:
        """Pairs a second with full passes."""
        return self.pass_pairs / self.seconds(self.pass_pairs)

    def seconds(self, pairs: int) -> float:
        """Time of a pass with this many pairs."""
        return self.pass_s + pairs * self.pair_s


@dataclass(frozen=True)
class Service:
    """How a number of requests were served.

    :param load: share of the replicas' throughput that was asked for.
    :param answered: share of the requests that were answered, not refused.
    """

    replicas: int
    load: float
    requests_per_s: float
    answered: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def simulate(
    replica: Replica,
    replicas: int,
    load: float,
    pairs: int,
    requests: int,
    *,
    seed: int = 0,
    max_queued_pairs: int | None = None,
) -> Service:
    """Serve requests of ``pairs`` pairs each.

    :param load: share of the replicas' throughput that is asked for; at 1 and above only a bound
        keeps the queue from growing.
    :param max_queued_pairs: pairs that may be in one replica; more are refused, as the engine does.
    """
    rate = load * replicas * replica.pairs_per_s / pairs
    cluster = _Cluster(replica, replicas, max_queued_pairs)
    cluster.run(rate, pairs, requests, random.Random(seed))
    return service(cluster.latencies, requests, replicas, load, rate)


def service(
    latencies: Sequence[float], requests: int, replicas: int, load: float, rate: float
) -> Service:
    """Figures from latencies in seconds, without the first tenth: the queue fills then."""
    settled = sorted(latencies[len(latencies) // 10 :])
    p50, p95, p99 = (
        round(1e3 * settled[int(share * (len(settled) - 1))], 1) for share in (0.5, 0.95, 0.99)
    )
    answered = round(len(latencies) / requests, 3)
    return Service(replicas, load, round(rate, 2), answered, p50, p95, p99)


@dataclass(eq=False)
class _Request:
    arrived: float
    pairs: int
    size: int


@dataclass
class _Server:
    waiting: deque[_Request] = field(default_factory=deque)
    requests: int = 0
    pairs: int = 0
    busy: bool = False


class _Cluster:
    """Replicas and what happens to them, in order of time."""

    def __init__(self, replica: Replica, replicas: int, max_queued_pairs: int | None) -> None:
        self.latencies: list[float] = []
        self._replica = replica
        self._servers = [_Server() for _ in range(replicas)]
        self._max_pairs = max_queued_pairs
        # when a pass ends, order of entry, where, and which requests are complete then
        self._passes: list[tuple[float, int, _Server, list[_Request]]] = []
        self._order = count()

    def run(self, rate: float, pairs: int, requests: int, chance: random.Random) -> None:
        now = 0.0
        for _ in range(requests):
            self._pass_until(now)
            two = chance.sample(self._servers, min(2, len(self._servers)))
            server = min(two, key=lambda each: each.requests)
            self._arrive(server, _Request(now, pairs, pairs))
            now += chance.expovariate(rate)
        self._pass_until(float("inf"))

    def _pass_until(self, moment: float) -> None:
        while self._passes and self._passes[0][0] <= moment:
            now, _, server, ended = heapq.heappop(self._passes)
            server.requests -= len(ended)
            server.pairs -= sum(request.size for request in ended)
            self.latencies += [now - request.arrived for request in ended]
            self._begin_pass(server, now)

    def _arrive(self, server: _Server, request: _Request) -> None:
        if self._max_pairs and server.pairs and server.pairs + request.size > self._max_pairs:
            return
        server.requests += 1
        server.pairs += request.size
        server.waiting.append(request)
        if not server.busy:
            self._begin_pass(server, request.arrived)

    def _begin_pass(self, server: _Server, now: float) -> None:
        taken, ended = _fill(server.waiting, self._replica.pass_pairs)
        server.busy = bool(taken)
        if taken:
            end = now + self._replica.seconds(taken)
            heapq.heappush(self._passes, (end, next(self._order), server, ended))


def _fill(waiting: deque[_Request], room: int) -> tuple[int, list[_Request]]:
    """Take pairs of all waiting requests in turn; tell how many, and which requests that ends."""
    taken, ended = 0, []
    while waiting and taken < room:
        # whole rounds at once, then single pairs
        share = max((room - taken) // len(waiting), 1)
        for _ in range(min(len(waiting), room - taken)):
            request = waiting.popleft()
            pairs = min(share, request.pairs, room - taken)
            request.pairs -= pairs
            taken += pairs
            if request.pairs:
                waiting.append(request)
            else:
                ended.append(request)
    return taken, ended


def cost(pairs_per_s: float, hour: float, tokens: float, per_million_tokens: float) -> object:
    """Dollars for a million pairs, here and at a host that is paid by the token.

    :param pairs_per_s: of one replica with full passes.
    :param hour: dollars for an hour of one replica.
    :returns: also what an hour may cost at most for both to be equally dear.
    """
    served = _PRICED_LOAD * pairs_per_s * 3_600 / 1e6
    hosted = tokens * per_million_tokens
    return {
        "at_load": _PRICED_LOAD,
        "own": round(hour / served, 3),
        "hosted": round(hosted, 3),
        "equal_at_dollars_an_hour": round(hosted * served, 4),
    }


def main() -> None:
    """Print one JSON object a line: the replica, what it serves, what it costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--replica", type=Path, help="JSON lines of capacity_check.py")
    given.add_argument("--pairs-per-s", type=float, help="of one replica with full passes")
    parser.add_argument("--source", default="unknown", help="of --pairs-per-s, to be printed")
    parser.add_argument("--pass-ms", type=float, default=5.0, help="with --pairs-per-s")
    parser.add_argument("--pass-tokens", type=int, default=16_384, help="with --pairs-per-s")
    parser.add_argument("--tokens", type=float, default=150, help="in one pair; --pairs-per-s")
    parser.add_argument("--pairs", type=int, default=50, help="pairs in one request")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--hour", type=float, default=3.0, help="dollars for a replica's hour")
    parser.add_argument("--hosted", type=float, default=0.0031, help="dollars for a million tokens")
    arguments = parser.parse_args()
    if arguments.replica:
        replica, tokens = _read(arguments.replica)
        source = f"measured: {arguments.replica.name}"
    else:
        tokens = arguments.tokens
        source = f"given, not measured: {arguments.source}; pass_s is an assumption"
        pass_pairs = int(arguments.pass_tokens / tokens)
        replica = Replica.of(arguments.pairs_per_s, pass_pairs, pass_s=arguments.pass_ms / 1e3)
    described = {**asdict(replica), "pairs_per_s": round(replica.pairs_per_s, 1)}
    about = {"pairs_in_a_request": arguments.pairs, "tokens_in_a_pair": tokens}
    print(json.dumps({"replica": described, "source": source, **about}))
    for replicas in REPLICAS:
        for load in LOADS:
            served = simulate(replica, replicas, load, arguments.pairs, arguments.requests)
            pairs_per_s = round(load * replicas * replica.pairs_per_s, 1)
            print(json.dumps({**asdict(served), "pairs_per_s": pairs_per_s}))
    price = cost(replica.pairs_per_s, arguments.hour, tokens, arguments.hosted)
    print(json.dumps({"dollars_per_million_pairs": price, "dollars_an_hour": arguments.hour}))


def _read(path: Path) -> tuple[Replica, float]:
    """The replica that ``capacity_check.py`` measured, and the tokens in its pairs."""
    for line in path.read_text(encoding="utf-8").splitlines():
        measured = json.loads(line).get("measured")
        if measured:
            replica = Replica(measured["pass_s"], measured["pair_s"], measured["pass_pairs"])
            return replica, measured["tokens_in_a_pair"]
    raise SystemExit(f"{path}: no line has a measured replica")


if __name__ == "__main__":
    main()
