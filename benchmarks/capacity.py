"""What one, eight and 64 replicas serve, and how long callers wait, from one measured replica.

A replica is described by two figures: the time of an empty forward pass and the time of one more
pair in it. Requests come at random times (Poisson), go to the less busy of two replicas drawn at
random (as Ray Serve routes), and share passes as the engine shares them: a pass takes pairs of all
waiting requests in turn, up to the token budget.

::

    python -m benchmarks.capacity --pass-ms 4 --pair-us 120 --gpu-hour 2.50
    python -m benchmarks.capacity --check        # simulation against real servers, 1 and 2 replicas
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

REPLICAS = (1, 8, 64)
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


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

    @property
    def pairs_per_s(self) -> float:
        """Pairs a second with full passes."""
        return self.pass_pairs / self.seconds(self.pass_pairs)

    def seconds(self, pairs: int) -> float:
        """Time of a pass with this many pairs."""
        return self.pass_s + pairs * self.pair_s


@dataclass
class _Request:
    arrived: float
    pairs: int


@dataclass
class _Server:
    waiting: deque[_Request] = field(default_factory=deque)
    outstanding: int = 0
    busy: bool = False


@dataclass(frozen=True)
class Waits:
    """How long callers waited.

    :param load: share of the replicas' throughput that was asked for.
    """

    replicas: int
    load: float
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def simulate(
    replica: Replica, replicas: int, load: float, pairs: int, requests: int, seed: int = 0
) -> Waits:
    """Serve ``requests`` requests of ``pairs`` pairs each.

    :param load: share of the replicas' throughput, below 1.
    """
    chance = random.Random(seed)
    rate = load * replicas * replica.pairs_per_s / pairs
    servers = [_Server() for _ in range(replicas)]
    latencies: list[float] = []
    # time, order of entry, the server whose pass ends then (None: a request arrives), its requests
    events: list[tuple[float, int, int | None, list[_Request]]] = []
    counter = iter(range(10**12))

    def begin_pass(number: int, now: float) -> None:
        server = servers[number]
        taken, ended = _fill(server.waiting, replica.pass_pairs)
        server.busy = bool(taken)
        if taken:
            heapq.heappush(events, (now + replica.seconds(taken), next(counter), number, ended))

    heapq.heappush(events, (0.0, next(counter), None, []))
    arrivals = 0
    while events:
        now, _, number, ended = heapq.heappop(events)
        if number is None:
            arrivals += 1
            if arrivals < requests:
                later = now + chance.expovariate(rate)
                heapq.heappush(events, (later, next(counter), None, []))
            two = chance.sample(range(replicas), min(2, replicas))
            number = min(two, key=lambda each: servers[each].outstanding)
            servers[number].outstanding += 1
            servers[number].waiting.append(_Request(now, pairs))
            if not servers[number].busy:
                begin_pass(number, now)
            continue
        servers[number].outstanding -= len(ended)
        latencies += [now - request.arrived for request in ended]
        begin_pass(number, now)
    return waits(latencies, replicas, load, rate)


def waits(latencies: Sequence[float], replicas: int, load: float, rate: float) -> Waits:
    """Percentiles of latencies in seconds, without the first tenth: the queue fills then."""
    settled = sorted(latencies[len(latencies) // 10 :])
    p50, p95, p99 = (1e3 * settled[int(share * (len(settled) - 1))] for share in (0.5, 0.95, 0.99))
    return Waits(replicas, load, round(rate, 1), round(p50, 1), round(p95, 1), round(p99, 1))


def _fill(waiting: deque[_Request], room: int) -> tuple[int, list[_Request]]:
    """Take pairs of all waiting requests in turn; tell how many, and which requests that ends."""
    taken, ended = 0, []
    while waiting and taken < room:
        # whole rounds at once, then single pairs
        share = max((room - taken) // len(waiting), 1)
        for _ in range(min(len(waiting), room - taken)):
            request = waiting.popleft()
            count = min(share, request.pairs, room - taken)
            request.pairs -= count
            taken += count
            if request.pairs:
                waiting.append(request)
            else:
                ended.append(request)
    return taken, ended


def cost(replica: Replica, gpu_hour: float, load: float, tokens: int, per_million: float) -> object:
    """Price of a million pairs on this replica, and at a host that is paid by the token."""
    own = gpu_hour / 3_600 / (load * replica.pairs_per_s) * 1e6
    return {"own": round(own, 3), "hosted": round(tokens * per_million, 3), "at_load": load}


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pass-ms", type=float, default=4.0)
    parser.add_argument("--pair-us", type=float, default=120.0)
    parser.add_argument("--pass-pairs", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=100, help="pairs in one request")
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--gpu-hour", type=float, default=2.5, help="dollars for one GPU and hour")
    parser.add_argument("--tokens", type=int, default=200, help="tokens in one pair")
    parser.add_argument("--hosted", type=float, default=0.0031, help="dollars for a million tokens")
    parser.add_argument("--check", action="store_true", help="compare with real servers instead")
    arguments = parser.parse_args()
    if arguments.check:
        from benchmarks.capacity_check import check

        for outcome in check():
            print(json.dumps(outcome))
        return
    replica = Replica(arguments.pass_ms / 1e3, arguments.pair_us / 1e6, arguments.pass_pairs)
    print(json.dumps({**asdict(replica), "pairs_per_s": round(replica.pairs_per_s)}))
    for replicas in REPLICAS:
        for load in LOADS:
            outcome = simulate(replica, replicas, load, arguments.pairs, arguments.requests)
            print(json.dumps(asdict(outcome)))
    price = cost(replica, arguments.gpu_hour, 0.7, arguments.tokens, arguments.hosted)
    print(json.dumps({"dollars_per_million_pairs": price}))


if __name__ == "__main__":
    main()
