from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from bge_rerank_integrations.engine.attention import Packing, packed_attention

CPU = torch.device("cpu")


def naive(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, causal: bool
) -> torch.Tensor:
    """One sequence's attention, from the formula."""
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    products = torch.einsum("qhd,khd->hqk", query, key) * scale
    if causal:
        products += torch.full(products.shape[1:], -torch.inf).triu(1)
    return torch.einsum("hqk,khd->qhd", products.softmax(-1), value)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_each_sequence_attends_to_itself_only(causal: bool, key_heads: int) -> None:
    torch.manual_seed(0)
    lengths = [5, 5, 1, 7, 5]
    packing = Packing.of(lengths, CPU)
    query = torch.randn(sum(lengths), 4, 8)
    key, value = torch.randn(2, sum(lengths), key_heads, 8)
    packed = packed_attention(query, key, value, packing, packing, scale=0.3, causal=causal)
    for start, end in zip(packing.starts, packing.starts[1:], strict=False):
        alone = naive(query[start:end], key[start:end], value[start:end], 0.3, causal)
        torch.testing.assert_close(packed[start:end], alone)


def test_queries_may_be_fewer_than_keys() -> None:
    torch.manual_seed(0)
    keys, firsts = Packing.of([4, 4, 2], CPU), Packing.of([1, 1, 1], CPU)
    query = torch.randn(10, 2, 8)
    key, value = torch.randn(2, 10, 2, 8)
    whole = packed_attention(query, key, value, keys, keys, scale=1.0)
    rows = keys.starts[:-1].long()
    first = packed_attention(query[rows], key, value, firsts, keys, scale=1.0)
    torch.testing.assert_close(first, whole[rows])


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_bfloat16_products_agree_with_the_formula(size: float) -> None:
    """Also where attention scores are so large that their exponentials overflow."""
    torch.manual_seed(0)
    lengths = [70, 70, 130, 5, 48]
    packing = Packing.of(lengths, CPU)
    query, key, value = torch.randn(3, sum(lengths), 4, 64).bfloat16()
    query = query * size
    packed = packed_attention(query, key, value, packing, packing, scale=0.125)
    assert packed.dtype is torch.bfloat16
    for start, end in zip(packing.starts, packing.starts[1:], strict=False):
        states = (states[start:end].float() for states in (query, key, value))
        alone = naive(*states, 0.125, causal=False)
        if size < 1e3:  # beyond, bfloat16 rounds scores by more than they differ
            torch.testing.assert_close(packed[start:end].float(), alone, atol=0.2, rtol=0.05)
        assert packed[start:end].isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_the_flash_kernel_agrees(causal: bool, key_heads: int) -> None:
    torch.manual_seed(0)
    lengths = [130, 5, 64, 1]
    packing = Packing.of(lengths, torch.device("cuda"))
    query = torch.randn(sum(lengths), 4, 64)
    key, value = torch.randn(2, sum(lengths), key_heads, 64)
    half = [t.to("cuda", torch.bfloat16) for t in (query, key, value)]
    packed = packed_attention(*half, packing, packing, scale=0.125, causal=causal).float().cpu()
    for start, end in zip(packing.starts.cpu(), packing.starts.cpu()[1:], strict=False):
        one = (t[start:end].transpose(0, 1)[None] for t in (query, key, value))
        alone = scaled_dot_product_attention(*one, is_causal=causal, enable_gqa=True)
        torch.testing.assert_close(
            packed[start:end], alone[0].transpose(0, 1), atol=2e-2, rtol=2e-2
        )
