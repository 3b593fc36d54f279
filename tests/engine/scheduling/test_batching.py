from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bge_rerank_integrations.engine.scheduling.worker import plan_batches

LENGTHS = st.lists(st.integers(1, 200), max_size=60)
BUDGETS = st.integers(1, 500)


@given(LENGTHS, BUDGETS, st.booleans())
def test_every_sequence_is_in_one_batch_longest_first(
    lengths: list[int], budget: int, padded: bool
) -> None:
    order = [i for batch in plan_batches(lengths, budget, padded=padded) for i in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)


@given(LENGTHS, BUDGETS, st.booleans())
def test_batches_keep_the_budget_and_are_full(
    lengths: list[int], budget: int, padded: bool
) -> None:
    def cost(batch: list[int]) -> int:
        held = [lengths[i] for i in batch]
        return max(held) * len(held) if padded else sum(held)

    batches = plan_batches(lengths, budget, padded=padded)
    assert all(cost(batch) <= budget or len(batch) == 1 for batch in batches)
    for batch, following in itertools.pairwise(batches):
        assert cost([*batch, following[0]]) > budget


def test_padding_counts() -> None:
    assert plan_batches([100, 10, 10], 120) == [[0, 1, 2]]
    assert plan_batches([100, 10, 10], 120, padded=True) == [[0], [1, 2]]
