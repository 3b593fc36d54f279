"""The capacity page's simulation against queueing theory, and its memory against the catalog."""

from __future__ import annotations

import pytest

capacity = pytest.importorskip("benchmarks.capacity", reason="the benchmarks are not in the sdist")

from benchmarks.capacity import Replica, simulate  # noqa: E402
from benchmarks.capacity_memory import CONFIGS, memory  # noqa: E402
from bge_rerank_integrations.catalog import CATALOG  # noqa: E402

# one pair a pass: a queue with one server and constant service times
ONE_BY_ONE = Replica(pass_s=0.0, pair_s=1.0, pass_pairs=1)


def test_a_single_queue_is_as_theory_has_it() -> None:
    # M/D/1 at load ½ (Erlang 1909): P(no wait) = 1 - load, so the median request waits for nobody
    served = simulate(ONE_BY_ONE, 1, 0.5, 1, 50_000)
    assert served.p50_ms == pytest.approx(1000, rel=0.02)
    # P(wait <= 2) = ½ Σ_{k=0..2} (½(k-2))^k / k! e^{-½(k-2)} = 0.947: p95 is a little over 3
    assert served.p95_ms == pytest.approx(3000, rel=0.03)
    assert served.answered == 1


def test_two_choices_shorten_the_longest_waits() -> None:
    one, many = (simulate(ONE_BY_ONE, replicas, 0.9, 1, 20_000) for replicas in (1, 64))
    assert many.p95_ms < one.p95_ms / 3


def test_a_bounded_queue_refuses_what_is_too_much() -> None:
    served = simulate(ONE_BY_ONE, 1, 2.0, 1, 20_000, max_queued_pairs=5)
    assert served.answered == pytest.approx(0.5, abs=0.01)
    # five places: nobody waits for more than five passes
    assert served.p99_ms <= 5000


def test_requests_share_passes() -> None:
    replica = Replica(pass_s=1.0, pair_s=0.0, pass_pairs=100)
    # hardly any load: a request of 250 pairs takes three passes
    assert simulate(replica, 1, 0.001, 250, 100).p50_ms == pytest.approx(3000)


def test_a_throughput_gives_the_pairs_time() -> None:
    replica = Replica.of(2858, 109, pass_s=0.005)
    assert replica.pairs_per_s == pytest.approx(2858)
    with pytest.raises(ValueError, match="leave no time"):
        Replica.of(1000, 10, pass_s=0.01)


def test_the_price_of_a_million_pairs() -> None:
    price = capacity.cost(1000, hour=2.52, tokens=150, per_million_tokens=0.0031)
    # 0.7 × 1000 × 3600 pairs cost $2.52
    assert price["own"] == 1.0
    assert price["hosted"] == pytest.approx(0.465)
    assert price["equal_at_dollars_an_hour"] == pytest.approx(0.465 * 2.52)


@pytest.mark.parametrize("model", CONFIGS)
def test_the_configurations_have_the_catalogs_parameters(model: str) -> None:
    (entry,) = (entry for entry in CATALOG if entry.model == model)
    assert memory(model).parameters_m == entry.parameters_m
