from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bge_rerank_integrations.engine.scorers.compression import Span, compress

SPANS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 4)).map(
        lambda parts: Span(sum(parts) + 1, parts[0], parts[0] + parts[1])
    ),
    min_size=1,
    max_size=5,
)


def naive(states: torch.Tensor, span: Span, ratio: int) -> torch.Tensor:
    """One sequence, from the recipe: query, means of groups, prompt."""
    groups = states[span.start : span.end].split(ratio) if span.end > span.start else []
    means = [group.mean(0, keepdim=True) for group in groups]
    return torch.cat([states[: span.start], *means, states[span.end :]])


@given(SPANS, st.sampled_from([2, 4, 8]))
def test_passages_become_means_of_their_groups(spans: list[Span], ratio: int) -> None:
    torch.manual_seed(0)
    sequences = [torch.randn(span.length, 3) for span in spans]
    hidden, shorter = compress(torch.cat(sequences), spans, ratio)
    expected = [naive(s, span, ratio) for s, span in zip(sequences, spans, strict=True)]
    assert [span.length for span in shorter] == [len(sequence) for sequence in expected]
    torch.testing.assert_close(hidden, torch.cat(expected))
    for before, after in zip(spans, shorter, strict=True):
        assert after.start == before.start
        assert after.length - after.end == before.length - before.end
