"""The host's side of CUDA on stubs of its seams: pinned memory, events, each thread's device.

torch's wheels for the CPU have no device that runs on its own. The stub here queues every copy that
does not block, and only an event that is waited for lets the copies before it happen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from callers import PATIENCE_S, in_thread
from fake_cuda import CUDA, fake_cuda
from fakes import FakeScorer, MakeEngine

from bge_rerank_integrations.engine.loading import devices
from bge_rerank_integrations.engine.scheduling import scheduler
from bge_rerank_integrations.engine.scorers import attention, heads
from bge_rerank_integrations.engine.scorers.attention import (
    Packing,
    has_flash_kernel,
    packed_attention,
    upload,
)


class Stream:
    """Copies that the device has been given, and has not made."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []
        self.done = 0
        self.pinned: set[int] = set()
        self.events: list[Event] = []

    def run(self, until: int) -> None:
        while self.done < until:
            self.waiting[self.done]()
            self.done += 1


class Event:
    stream: Stream

    def __init__(self, *, blocking: bool) -> None:
        self.is_blocking = blocking
        self.position = -1
        self.stream.events.append(self)

    def record(self, stream: Stream) -> None:
        self.position = len(stream.waiting)

    def synchronize(self) -> None:
        assert self.position >= 0
        self.stream.run(self.position)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Let the CPU's tensors be copied as CUDA's are."""
    stream = Stream()
    copy_, empty = torch.Tensor.copy_, torch.empty

    def queued(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
        assert non_blocking
        assert target.data_ptr() in stream.pinned
        stream.waiting.append(lambda: copy_(target, source))
        return target

    def pinned_empty(*shape: Any, pin_memory: bool, **given: Any) -> torch.Tensor:
        tensor = empty(*shape, **given).fill_(torch.nan)
        assert pin_memory
        stream.pinned.add(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(Event, "stream", stream, raising=False)
    monkeypatch.setattr(torch.Tensor, "copy_", queued)
    monkeypatch.setattr(torch, "empty", pinned_empty)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return stream


def test_logits_are_read_after_their_own_copy(stream: Stream) -> None:
    """Two batches are under way; the first is answered while the second is not computed."""
    first, second = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])
    pending = [heads._PendingArray(logits) for logits in (first, second)]
    assert (len(stream.waiting), stream.done) == (2, 0)
    np.testing.assert_array_equal(np.asarray(pending[0]), [[1.0], [2.0]])
    assert stream.done == 1
    np.testing.assert_array_equal(np.asarray(pending[1]), [[3.0]])
    assert stream.done == 2
    # a thread that waits leaves its core to others
    assert all(event.is_blocking for event in stream.events)


def test_a_workers_next_batch_starts_before_the_last_is_waited_for(
    stream: Stream, make_engine: MakeEngine
) -> None:
    started: list[int] = []

    def score(batch: Any) -> Any:
        started.append(stream.done)
        return heads._PendingArray(torch.tensor([[float(len(each))] for each in batch]))

    engine = make_engine(FakeScorer(score), max_batch_tokens=8)
    call = in_thread(engine.score, "q", ["a", "b c d e", "f g"])
    assert len(call.result(PATIENCE_S)) == 3
    assert len(started) > 1
    # when the n-th batch starts, the one before it has not been copied
    assert all(done < number for number, done in enumerate(started) if number)


def test_uploads_are_of_pinned_memory_and_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Host:
        def pin_memory(self) -> Host:
            calls.append("pinned")
            return self

        def to(self, device: torch.device, **given: Any) -> Host:
            calls.append((device, given))
            return self

    host: Any = Host()
    upload(host, CUDA)
    assert calls == ["pinned", (CUDA, {"non_blocking": True})]
    calls.clear()
    upload(host, torch.device("cpu"))
    assert calls == [(torch.device("cpu"), {})]


def test_each_worker_selects_its_device(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected: list[torch.device] = []
    monkeypatch.setattr(scheduler, "select_device", selected.append)
    make_engine().score("q", ["a"])
    assert selected == [torch.device("cpu")]


def test_selecting_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = torch.backends.cuda.matmul
    selected: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", selected.append)
    before = (
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_fp16_reduced_precision_reduction,
    )
    try:
        for name in ("cpu", "cuda", "cuda:1"):
            devices.select_device(torch.device(name))
        assert selected == [0, 1]
        assert matmul.allow_bf16_reduced_precision_reduction is False
        assert matmul.allow_fp16_reduced_precision_reduction is False
    finally:
        (
            matmul.allow_bf16_reduced_precision_reduction,
            matmul.allow_fp16_reduced_precision_reduction,
        ) = before


def test_a_device_that_no_test_has_run_on_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_is_there", lambda _: True)
    assert devices.resolve_device("xpu:0") == torch.device("xpu:0")
    assert "tested on cpu, cuda, mps" in caplog.text
    caplog.clear()
    devices.resolve_device("cuda:0")
    assert not caplog.text


def test_the_flash_kernel_takes_what_begins_at_16_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch):
        states = torch.empty(9, 3 * 2 * 16, dtype=torch.bfloat16, device=CUDA)
        query, key, _ = attention.split_heads(states, 3, 2)
        assert has_flash_kernel(query)
        assert has_flash_kernel(key)
        flat = torch.empty(9 * 36, dtype=torch.bfloat16, device=CUDA)
        assert not has_flash_kernel(flat.as_strided((9, 2, 16), (36, 16, 1)))
        assert not has_flash_kernel(flat.as_strided((9, 2, 16), (32, 16, 1), 4))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
        assert not has_flash_kernel(query)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("is_first_only", [False, True])
def test_without_the_flash_kernel_like_lengths_share_a_call(
    causal: bool, is_first_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of CUDA in float32 or below compute capability 8.0, on the CPU."""
    if causal and is_first_only:
        pytest.skip("causal queries and keys are packed alike")
    torch.manual_seed(0)
    lengths = [190, 150, 130, 128, 128, 64, 40, 7, 3, 1]
    cpu = torch.device("cpu")
    keys = Packing.from_lengths(lengths, cpu)
    queries = Packing.from_lengths([1] * len(lengths), cpu) if is_first_only else keys
    key, value = torch.randn(2, sum(lengths), 2, 16)
    query = torch.randn(sum(queries.lengths), 4, 16)
    given = {"scale": 0.3, "causal": causal}
    expected = packed_attention(query, key, value, queries, keys, **given)
    calls = []
    attend = attention.scaled_dot_product_attention

    def counted(*states: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append(states[0].shape)
        return attend(*states, **options)

    monkeypatch.setattr(attention, "_PADDED_DEVICE", "cpu")
    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    for _ in range(2):
        calls.clear()
        attended = packed_attention(query, key, value, queries, keys, **given)
        torch.testing.assert_close(attended, expected, atol=1e-6, rtol=1e-5)
        # 192, 128, 64 and one token alone
        assert len(calls) == 4
    assert list(queries.grids) == [tuple(lengths)]
