"""A device that is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

import pytest
import torch
from callers import PATIENCE_S, assert_works, expected, in_thread, wait_until
from fakes import FakeScorer, Logits, MakeEngine, TokenSequence, digests

from bge_rerank_integrations import ScoringError

DOCUMENTS = [f"document {number:03}" for number in range(64)]
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")


def full(
    error: BaseException, when: Callable[[int], bool]
) -> Callable[[Sequence[TokenSequence]], Logits]:
    """A scorer's answer that fails where ``when(tokens)`` holds."""

    def answer(batch: Sequence[TokenSequence]) -> Logits:
        if when(sum(map(len, batch))):
            raise error
        return digests(batch)

    return answer


@pytest.mark.parametrize("error", [CUDA, CUBLAS, CPU, MemoryError()])
def test_once(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    errors = iter([True])
    scorer = FakeScorer(full(error, lambda _: next(errors, False)))
    engine = make_engine(scorer, max_batch_tokens=1_024)
    assert engine.score("q", DOCUMENTS) == expected("q", DOCUMENTS)
    assert engine.stats().retries == 1
    assert caplog.text.count("out of memory: batches shrink to 512 tokens") == 1
    assert engine.stats().failures == 0
    assert_works(engine)


def test_batches_shrink_to_256_tokens_at_least(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([True])
    scorer = FakeScorer(full(CUDA, lambda _: next(errors, False)))
    engine = make_engine(scorer, max_batch_tokens=400)
    assert engine.score("q", DOCUMENTS) == expected("q", DOCUMENTS)
    assert "out of memory: batches shrink to 256 tokens" in caplog.text


def test_above_a_size_batches_become_smaller_and_stay_so(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = FakeScorer(full(CUDA, lambda tokens: tokens > 520))
    engine = make_engine(scorer, max_batch_tokens=2_048)
    assert engine.score("q", DOCUMENTS) == expected("q", DOCUMENTS)
    failed = engine.stats().retries
    assert 1 <= failed <= 3
    assert "out of memory: batches shrink to 1024 tokens" in caplog.text
    more = [f"another one {number:04}" for number in range(320)]
    assert engine.score("q", more) == expected("q", more)
    # 5,000 tokens more, without one failure for every batch of them
    assert engine.stats().retries <= failed + 3
    assert_works(engine)


def test_batches_grow_again_once_there_is_memory(make_engine: MakeEngine) -> None:
    """Another process may have held it for a moment."""
    errors = iter([True, True])
    scorer = FakeScorer(full(CUDA, lambda _: next(errors, False)))
    engine = make_engine(scorer, max_batch_tokens=1_024)
    engine.score("q", DOCUMENTS)
    shrunk = scorer.batches[2:]
    assert max(map(sum, shrunk)) <= 512
    for _ in range(150):
        engine.score("q", DOCUMENTS)
    # a call of 832 tokens is one batch, as before
    assert scorer.batches[-1] == [13] * 64


def test_the_batches_of_another_device_stay_as_they_are(make_engine: MakeEngine) -> None:
    small, large = Event(), Event()

    def out_of_memory(batch: Sequence[TokenSequence]) -> Logits:
        if not small.is_set():
            small.set()
            raise CUDA
        assert large.wait(PATIENCE_S)
        return digests(batch)

    def enough(batch: Sequence[TokenSequence]) -> Logits:
        # until the other one has failed and begun again, with less
        wait_until(lambda: len(first.batches) == 2)
        return digests(batch)

    first, second = FakeScorer(out_of_memory), FakeScorer(enough)
    engine = make_engine(first, second, max_batch_tokens=504)
    # five batches of 36 documents with 14 tokens each
    documents = [f"document {number:04}"[-13:] for number in range(36 * 5)]
    call = in_thread(engine.score, "q", documents)
    # one is still in the first device's hands
    wait_until(lambda: len(second.batches) == 4)
    large.set()
    assert call.result(PATIENCE_S) == expected("q", documents)
    assert first.batches[:2] == [[14] * 36, [14] * 18]
    assert second.batches == [[14] * 36] * 4


def test_always_fails_the_call_and_not_the_engine(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = True
    scorer = FakeScorer(full(CUDA, lambda _: is_full))
    engine = make_engine(scorer, max_batch_tokens=1_024)
    for _ in range(3):
        with pytest.raises(ScoringError, match=r"scoring document \d+ failed: CUDA out of memory"):
            engine.score("q", DOCUMENTS)
    # 1024 → 512 → 256, and one line for each call
    wait_until(lambda: caplog.text.count("a call failed") == 3)
    assert caplog.text.count("batches shrink") == 2
    is_full = False
    assert_works(engine)
    assert engine.stats().failures == 3


def test_a_budget_that_was_set_small_never_grows(make_engine: MakeEngine) -> None:
    errors = iter([True])
    scorer = FakeScorer(full(CUDA, lambda _: next(errors, False)))
    engine = make_engine(scorer, max_batch_tokens=64)
    assert engine.score("q", DOCUMENTS) == expected("q", DOCUMENTS)
    assert max(map(sum, scorer.batches)) <= 64
    assert_works(engine)
