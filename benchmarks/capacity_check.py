"""Measure a replica, and see whether the simulation of :mod:`capacity` tells what servers do.

Without ``--model`` everything but the forward pass is real: HTTP on this machine, the server, the
engine's queue and scheduler. The pass sleeps for as long as a described replica would compute, so
one and two replicas leave the processor to what is checked. With a model one server computes, on a
GPU or on one core that the callers leave alone. Then twice as much is asked as the replica can
bear::

    python -m benchmarks.capacity_check
    python -m benchmarks.capacity_check --model tiny --pairs 10 --requests 150
    python -m benchmarks.capacity_check --model FOLDER --measure-only
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.capacity import Service, service, simulate
from benchmarks.capacity_load import Answers, Measured, Texts, ask, measure
from benchmarks.capacity_servers import PACED, Server, start
from benchmarks.machine import describe_machine, versions
from bge_rerank_integrations.engine.loading.devices import default_batch_tokens, resolve_device
from bge_rerank_integrations.settings import BUILT_IN_MODEL

LOADS = (0.5, 0.7, 0.9)
OVERLOAD = 2.0
# what a full queue holds, in seconds of work, and how long its callers are ready to wait
_QUEUE_S, _IN_TIME_S = 1.0, 2.0
_SIMULATIONS = 100
_UNBOUNDED = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What to check.

    :param model: what the servers serve; None means that they only take their time.
    :param device: where a model computes.
    :param pairs: in one request.
    :param requests: at each load.
    :param saturated_s: how long to ask as much as a server can bear.
    """

    model: str | None
    device: torch.device
    pairs: int
    requests: int
    saturated_s: float

    @property
    def replicas(self) -> tuple[int, ...]:
        """Models of two servers would compete for the machine; those that sleep do not."""
        return (1, 2) if self.model is None else (1,)

    @property
    def pass_tokens(self) -> int:
        """Tokens in one forward pass, at most."""
        if self.model is None:
            return PACED.pass_pairs
        return default_batch_tokens(self.device)

    @property
    def core(self) -> int | None:
        """The core that a model on the CPU has for itself; the callers have the others."""
        return 0 if self.model is not None and self.device.type == "cpu" else None

    def server(
        self, max_queued_pairs: int = _UNBOUNDED, timeout_s: float = 60.0
    ) -> AbstractContextManager[Server]:
        """A server of this plan."""
        return start(
            self.model, max_queued_pairs=max_queued_pairs, timeout_s=timeout_s, core=self.core
        )


def check(plan: Plan, *, measure_only: bool) -> Iterator[dict[str, object]]:
    """What it ran on, the replica, simulated and measured waits, and overload."""
    texts = Texts()
    given: dict[str, object] = {"paced": asdict(PACED)}
    if plan.model is not None:
        given = {"model": Path(plan.model).name, "device": str(plan.device)}
    figures = {"pairs_in_a_request": plan.pairs, "requests": plan.requests}
    yield {"machine": describe_machine(), **versions("uvicorn", "httpx"), **given, **figures}
    with plan.server() as server:
        measured = asyncio.run(
            measure(server.url, texts, plan.pairs, plan.pass_tokens, plan.saturated_s)
        )
        yield _described(measured, server)
    if measure_only:
        return
    for replicas in plan.replicas:
        with ExitStack() as stack:
            urls = [stack.enter_context(plan.server()).url for _ in range(replicas)]
            for load in LOADS:
                yield _compare(plan, measured, texts, urls, load)
    yield _overload(plan, measured, texts)


def _described(measured: Measured, server: Server) -> dict[str, object]:
    figures = asdict(measured)
    return {"measured": {**figures.pop("replica"), **figures, "memory_mib": server.memory_mib()}}


def _compare(
    plan: Plan, measured: Measured, texts: Texts, urls: Sequence[str], load: float
) -> dict[str, object]:
    """So few requests wait differently each time: simulated is the range of 9 runs in 10."""
    runs = _simulations(plan, measured, len(urls), load)
    rate = runs[0].requests_per_s
    answers = asyncio.run(_warm_and_ask(plan, urls, rate, texts))
    seen = service(answers.latencies, plan.requests, len(urls), load, rate)
    return {
        **asdict(seen),
        "simulated_p50_ms": _range([run.p50_ms for run in runs]),
        "simulated_p95_ms": _range([run.p95_ms for run in runs]),
        "behind_p95_ms": _behind_p95_ms(answers),
    }


def _overload(plan: Plan, measured: Measured, texts: Texts) -> dict[str, object]:
    """Ask for twice what a replica with a bounded queue can bear."""
    queue = max(int(_QUEUE_S * measured.pairs_per_s), plan.pairs)
    plan = replace(plan, requests=2 * plan.requests)
    runs = _simulations(plan, measured, 1, OVERLOAD, queue)
    rate = runs[0].requests_per_s
    with plan.server(queue, _IN_TIME_S) as server:
        answers = asyncio.run(_warm_and_ask(plan, [server.url], rate, texts))
    accepted = plan.requests - answers.refused
    in_time = sum(latency <= _IN_TIME_S for latency in answers.latencies)
    # the queue fills first: requests share passes, so that few are answered before
    goodput = answers.per_second(since_s=_QUEUE_S) * plan.pairs
    figures = {
        **asdict(service(answers.latencies, plan.requests, 1, OVERLOAD, rate)),
        "requests": plan.requests,
        "max_queued_pairs": queue,
        "in_time_s": _IN_TIME_S,
        "accepted": accepted,
        "refused_429": answers.refused,
        "late_504": answers.late,
        "in_time_of_accepted": round(in_time / accepted, 3),
        "goodput_pairs_per_s": round(goodput, 1),
        "goodput_of_capacity": round(goodput / measured.pairs_per_s, 3),
        "simulated_answered": _range([run.answered for run in runs]),
        "simulated_p95_ms": _range([run.p95_ms for run in runs]),
        "behind_p95_ms": _behind_p95_ms(answers),
    }
    return {"overload": figures}


async def _warm_and_ask(plan: Plan, urls: Sequence[str], rate: float, texts: Texts) -> Answers:
    await ask(urls, rate, texts, plan.pairs, requests=5)
    return await ask(urls, rate, texts, plan.pairs, plan.requests)


def _simulations(
    plan: Plan, measured: Measured, replicas: int, load: float, queue: int | None = None
) -> list[Service]:
    return [
        simulate(
            measured.replica,
            replicas,
            load,
            plan.pairs,
            plan.requests,
            seed=seed,
            max_queued_pairs=queue,
        )
        for seed in range(_SIMULATIONS)
    ]


def _range(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]]


def _behind_p95_ms(answers: Answers) -> float:
    return round(1e3 * sorted(answers.behind_s)[int(0.95 * len(answers.behind_s))], 1)


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="the built-in one or a folder, even without weights")
    parser.add_argument("--pairs", type=int, default=20, help="pairs in one request")
    parser.add_argument("--requests", type=int, default=400, help="at each load")
    parser.add_argument("--saturated-s", type=float, default=10.0)
    parser.add_argument("--measure-only", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        model = arguments.model
        if model not in (None, BUILT_IN_MODEL) and Path(model).is_dir():
            from benchmarks.checkpoints import with_weights

            model = str(with_weights(Path(model), Path(temporary)))
        device = resolve_device("auto")
        plan = Plan(model, device, arguments.pairs, arguments.requests, arguments.saturated_s)
        if plan.core is not None:
            os.sched_setaffinity(0, os.sched_getaffinity(0) - {plan.core})
        for figures in check(plan, measure_only=arguments.measure_only):
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
