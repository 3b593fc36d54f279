from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from devices import CUDA
from paths import GOLDEN
from processes import run

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.engine.scorers import attention, cpu_attention, flash_attention
from bge_rerank_integrations.engine.scorers.attention import (
    LocalAttention,
    Packing,
    packed_attention,
    upload,
)

CPU = torch.device("cpu")


def naive(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """One sequence's attention, from the formula."""
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    products = torch.einsum("qhd,khd->hqk", query, key) * scale
    before, behind = (len(key) if width < 0 else width for width in window)
    distance = torch.arange(len(key)) - torch.arange(len(query))[:, None]
    products[:, (distance > behind) | (distance < -before)] = -torch.inf
    return torch.einsum("hqk,khd->qhd", products.softmax(-1), value)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_each_sequence_attends_to_itself_only(causal: bool, key_heads: int) -> None:
    torch.manual_seed(0)
    lengths = [5, 5, 1, 7, 5]
    packing = Packing.from_lengths(lengths, CPU)
    query = torch.randn(sum(lengths), 4, 8)
    key, value = torch.randn(2, sum(lengths), key_heads, 8)
    packed = packed_attention(query, key, value, packing, packing, scale=0.3, causal=causal)
    for start, end in zip(packing.starts, packing.starts[1:], strict=False):
        alone = naive(
            query[start:end], key[start:end], value[start:end], 0.3, (-1, 0) if causal else (-1, -1)
        )
        torch.testing.assert_close(packed[start:end], alone)


def test_queries_may_be_fewer_than_keys() -> None:
    torch.manual_seed(0)
    keys, firsts = Packing.from_lengths([4, 4, 2], CPU), Packing.from_lengths([1, 1, 1], CPU)
    query = torch.randn(10, 2, 8)
    key, value = torch.randn(2, 10, 2, 8)
    whole = packed_attention(query, key, value, keys, keys, scale=1.0)
    rows = keys.starts[:-1].long()
    first = packed_attention(query[rows], key, value, firsts, keys, scale=1.0)
    torch.testing.assert_close(first, whole[rows])


@pytest.mark.parametrize("window", [0, 1, 30, 64, 200])
@pytest.mark.parametrize("n_padding", [0, 5])
def test_local_attention_stays_in_its_window_and_its_sequence(window: int, n_padding: int) -> None:
    torch.manual_seed(0)
    lengths = [70, 1, 200, 64, 65, 3, 129]
    packing = Packing.from_lengths(lengths, CPU)
    states = torch.randn(3, sum(lengths) + n_padding, 2, 8)
    attend = LocalAttention(packing, window, scale=0.3)
    for query, key, value in (states, states.flip(0)):  # two layers of one batch
        packed = attend(query, key, value)
        assert packed.shape == query.shape
        assert packed.isfinite().all()
        for start, end in zip(packing.starts, packing.starts[1:], strict=False):
            each = (one[start:end] for one in (query, key, value))
            alone = naive(*each, 0.3, (window, window))
            torch.testing.assert_close(packed[start:end], alone)


MEMORY_OF_LOCAL_ATTENTION = """
import resource, torch
from bge_rerank_integrations.engine.scorers.attention import LocalAttention
from bge_rerank_integrations.engine.scorers.attention import Packing, upload

def attend(tokens):
    packing = Packing.from_lengths([tokens], torch.device("cpu"))
    LocalAttention(packing, 64, scale=0.3)(*torch.randn(3, tokens, 1, 8))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = attend(300)
print(attend(30_000) - before)
"""


def test_local_attention_of_a_long_document_takes_little_memory() -> None:
    """In a process of its own: one that was larger once has grown already."""
    done = run(MEMORY_OF_LOCAL_ATTENTION)
    # a mask of all queries and keys would take 900 MB as booleans
    assert 0 < int(done.stdout) < 300, done.stderr


@pytest.mark.parametrize("head_dim", [64, 32])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_bfloat16_products_agree_with_the_formula(
    size: float, head_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where attention scores are so large that their exponentials overflow."""
    torch.manual_seed(0)
    # the first three are too many for one group, and of the others two are short
    monkeypatch.setattr(cpu_attention, "_GROUP_WEIGHTS", 2 * 4 * 80**2)
    lengths = [70, 80, 66, 130, 5, 5, 48, 41]
    packing = Packing.from_lengths(lengths, CPU)
    query, key, value = torch.randn(3, sum(lengths), 4, head_dim).bfloat16()
    query = query * size
    packed = packed_attention(query, key, value, packing, packing, scale=0.125)
    assert packed.dtype is torch.bfloat16
    for start, end in zip(packing.starts, packing.starts[1:], strict=False):
        states = (states[start:end].float() for states in (query, key, value))
        alone = naive(*states, 0.125)
        if size < 1e3:  # beyond, bfloat16 rounds scores by more than they differ
            noise = 0.01 * size
            torch.testing.assert_close(packed[start:end].float(), alone, atol=noise, rtol=0.05)
        assert packed[start:end].isfinite().all()


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_bfloat16_of_long_texts_is_causal_and_shares_heads(key_heads: int, causal: bool) -> None:
    """Lengths and head sizes of released decoders, which the products would take too."""
    torch.manual_seed(0)
    lengths = [70, 5, 130]
    packing = Packing.from_lengths(lengths, CPU)
    query = torch.randn(sum(lengths), 4, 64).bfloat16()
    key, value = torch.randn(2, sum(lengths), key_heads, 64).bfloat16()
    packed = packed_attention(query, key, value, packing, packing, scale=0.125, causal=causal)
    for start, end in pairwise(packing.starts.tolist()):
        states = (states[start:end].float() for states in (query, key, value))
        alone = naive(*states, 0.125, (-1, 0) if causal else (-1, -1))
        torch.testing.assert_close(packed[start:end].float(), alone, atol=0.02, rtol=0.05)


def test_few_different_shapes_reach_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a compiled product for each, and memory would grow with every new length."""
    shapes: set[torch.Size] = set()
    product = torch.baddbmm

    def counting(into: torch.Tensor, query: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        shapes.add(query.shape)
        return product(into, query, *rest, **more)

    monkeypatch.setattr(torch, "baddbmm", counting)
    for length in range(48, 176):
        packing = Packing.from_lengths([length] * (length % 7 + 1), CPU)
        states = torch.randn(3, packing.starts[-1], 2, 64).bfloat16()
        packed_attention(*states, packing, packing, scale=0.125)
    lengths = range(48, 177, 16)
    assert shapes <= {torch.Size([2 * n, length, 64]) for length in lengths for n in (1, 2, 4)}
    assert {length for _, length, _ in shapes} == set(lengths)


def varlen_on_the_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    **told: bool,
) -> torch.Tensor:
    """The flash kernel's contract, from the formula."""
    assert cu_seq_q.dtype is cu_seq_k.dtype is torch.int32
    assert cu_seq_q.diff().max() == max_q
    assert cu_seq_k.diff().max() == max_k
    assert cu_seq_q[-1] <= len(query)
    is_shared = query.shape[1] != key.shape[1]
    assert told == ({"enable_gqa": is_shared} if flash_attention.TAKES_ENABLE_GQA else {})
    output = torch.zeros_like(query)
    for number in range(len(cu_seq_q) - 1):
        asking = slice(int(cu_seq_q[number]), int(cu_seq_q[number + 1]))
        seen = slice(int(cu_seq_k[number]), int(cu_seq_k[number + 1]))
        output[asking] = naive(query[asking], key[seen], value[seen], scale, window_size)
    return output


@pytest.fixture
def flash_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the path of CUDA in half precision, with a kernel that runs anywhere."""
    monkeypatch.setattr(flash_attention, "varlen_attn", varlen_on_the_cpu, raising=False)
    monkeypatch.setattr(attention, "has_flash_kernel", lambda _: True)


@pytest.mark.skipif(
    not flash_attention.IS_COMPLETE, reason="torch's kernel lacks what is asked of it"
)
def test_the_stand_in_takes_what_torchs_kernel_takes() -> None:
    theirs = list(inspect.signature(flash_attention.varlen_attn).parameters)
    *ours, _ = inspect.signature(varlen_on_the_cpu).parameters
    assert ours[:7] == theirs[:7]
    assert set(ours) <= set(theirs)
    # from torch 2.12 on
    assert ("enable_gqa" in theirs) == flash_attention.TAKES_ENABLE_GQA


@pytest.mark.parametrize("model", ["xlmr", "modernbert", "gemma", "light"])
@pytest.mark.usefixtures("flash_on_the_cpu")
def test_scores_by_the_flash_kernels_path(
    model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two encoders, a decoder with grouped heads, and one whose sequences get shorter."""
    is_made = model == "modernbert"
    folder = request.getfixturevalue(model) if is_made else str(GOLDEN / model)
    documents = ["short", "a passage of some more words than the other", "one " * 60]
    with RerankEngine(folder, device="cpu", dtype="float32") as engine:
        scores = engine.score("a query", documents)
    monkeypatch.undo()
    with RerankEngine(folder, device="cpu", dtype="float32") as engine:
        np.testing.assert_allclose(scores, engine.score("a query", documents), rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.usefixtures("flash_on_the_cpu")
def test_a_kernel_that_is_told_of_shared_heads_and_one_that_is_not(
    is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.12 has a parameter for them, and torch 2.11 has none."""
    monkeypatch.setattr(flash_attention, "TAKES_ENABLE_GQA", is_told)
    packing = Packing.from_lengths([5, 3], CPU)
    query, key = torch.randn(8, 4, 8), torch.randn(8, 2, 8)
    packed = packed_attention(query, key, key, packing, packing, scale=0.3, causal=True)
    torch.testing.assert_close(packed[:5], naive(query[:5], key[:5], key[:5], 0.3, (-1, 0)))


# bfloat16 on the CPU is another path, and tested above
ON_A_GPU = [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float32, 1e-5)]


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("dtype", "noise"), ON_A_GPU)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("key_heads", "head_dim"), [(4, 64), (4, 32), (2, 128), (1, 256)])
def test_a_gpus_attention_agrees(
    causal: bool, key_heads: int, head_dim: int, dtype: torch.dtype, noise: float, device: str
) -> None:
    """In half precision this is the flash kernel, here with the heads of released models."""
    torch.manual_seed(0)
    lengths = [130, 5, 64, 1, 1500]
    packing = Packing.from_lengths(lengths, torch.device(device))
    query = torch.randn(sum(lengths), 4, head_dim)
    key, value = torch.randn(2, sum(lengths), key_heads, head_dim)
    scale = head_dim**-0.5
    given = [states.to(device, dtype) for states in (query, key, value)]
    packed = packed_attention(*given, packing, packing, scale=scale, causal=causal).float().cpu()
    assert_is_naive(
        packed, (query, key, value), packing, scale, (-1, 0) if causal else (-1, -1), noise
    )


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("dtype", "noise"), ON_A_GPU)
@pytest.mark.parametrize("window", [0, 20, 64])
def test_a_gpus_local_attention_agrees(
    window: int, dtype: torch.dtype, noise: float, device: str
) -> None:
    torch.manual_seed(0)
    lengths = [130, 5, 64, 1, 1500]
    packing = Packing.from_lengths(lengths, torch.device(device))
    states = torch.randn(3, sum(lengths), 4, 64)
    attend = LocalAttention(packing, window, scale=0.125)
    packed = attend(*states.to(device, dtype)).float().cpu()
    assert_is_naive(packed, tuple(states), packing, 0.125, (window, window), noise)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("dtype", "noise"), ON_A_GPU)
def test_a_gpu_takes_fewer_queries_than_keys(dtype: torch.dtype, noise: float, device: str) -> None:
    """As in the last layer, whose queries are first tokens."""
    torch.manual_seed(0)
    lengths = [70, 1, 500]
    cuda = torch.device(device)
    keys, firsts = Packing.from_lengths(lengths, cuda), Packing.from_lengths([1, 1, 1], cuda)
    states = torch.randn(3, sum(lengths), 4, 64)
    rows = keys.starts[:-1].long().cpu()
    query, key, value = states[0][rows], states[1], states[2]
    given = [each.to(device, dtype) for each in (query, key, value)]
    packed = packed_attention(*given, firsts, keys, scale=0.125).float().cpu()
    for number, (start, end) in enumerate(pairwise(keys.starts.tolist())):
        alone = naive(query[number : number + 1], key[start:end], value[start:end], 0.125)
        torch.testing.assert_close(packed[number : number + 1], alone, atol=noise, rtol=noise)


def assert_is_naive(
    packed: torch.Tensor,
    states: tuple[torch.Tensor, ...],
    packing: Packing,
    scale: float,
    window: tuple[int, int],
    noise: float,
) -> None:
    """Compare each sequence's part with the formula."""
    for start, end in pairwise(packing.starts.tolist()):
        alone = naive(*(each[start:end] for each in states), scale, window)
        torch.testing.assert_close(packed[start:end], alone, atol=noise, rtol=noise)


@pytest.mark.parametrize("kind", ["cpu", "mps", "xpu"])
def test_only_cuda_copies_without_waiting(kind: str) -> None:
    """On Apple's GPUs, such a copy of a temporary may read memory that was freed."""
    asked: list[dict[str, object]] = []

    class Host:
        def to(self, device: torch.device, **options: object) -> Host:
            asked.append(options)
            return self

    upload(Host(), torch.device(kind))  # type: ignore[arg-type]
    assert asked == [{}]
