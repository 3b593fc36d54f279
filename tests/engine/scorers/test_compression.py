from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bge_rerank_integrations.engine.scorers.decoder import Span, compress

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


@given(SPANS, st.sampled_from([2, 4, 8]), st.sampled_from([torch.bfloat16, torch.float16]))
def test_means_in_half_precision_are_rounded_once(
    spans: list[Span], ratio: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    # a large common part, as hidden states have it: a sum of them has few bits left for the rest
    sequences = [(torch.randn(span.length, 3) + 7).to(dtype) for span in spans]
    hidden, _ = compress(torch.cat(sequences), spans, ratio)
    exact = [naive(s.double(), span, ratio) for s, span in zip(sequences, spans, strict=True)]
    assert hidden.dtype == dtype
    torch.testing.assert_close(hidden, torch.cat(exact).to(dtype), rtol=0, atol=0)


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
