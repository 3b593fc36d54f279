"""What a GPU must do as the CPU does; each test that can runs on both."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from callers import PATIENCE_S, in_thread, until, wait_until
from checkpoints import SMALL, SMALL_MODERNBERT, save_random
from devices import CUDA, DEVICES, needs_cuda
from paths import GOLDEN, ROOT
from transformers import GemmaConfig, LlamaConfig, ModernBertConfig, Qwen3Config

from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.engine.loading.model import load
from bge_rerank_integrations.engine.scorers.attention import has_flash_kernel
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence

QUERY = "what is a panda?"
DOCUMENTS = [
    "a bear of China",
    "",
    "x" * 60,
    "who? me",
    *(f"panda {'bear ' * n}" for n in range(30)),
]
EXACT = 1e-5
# half precision against float32, over the spread of the scores: twice what a CPU showed
NOISE = {"bfloat16": 0.21, "float16": 0.03}

# heads that torch's flash kernel takes, as all released models have
DECODER: Any = {
    **SMALL,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "num_labels": 1,
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos")},
}
CONFIGS = {
    "modernbert": ModernBertConfig(**SMALL_MODERNBERT),
    "modernbert, mean": ModernBertConfig(**SMALL_MODERNBERT, classifier_pooling="mean"),
    "qwen3": Qwen3Config(**DECODER, head_dim=16),
    "llama": LlamaConfig(**DECODER),
    "gemma": GemmaConfig(**{**DECODER, "num_key_value_heads": 1}, head_dim=16),
}
FIXTURES = ("xlmr", "bert", "distilbert")
MODELS = [*FIXTURES, *CONFIGS]


@pytest.fixture(scope="module")
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Tiny random checkpoints by name."""
    made: dict[str, str] = {}

    def folder(name: str) -> str:
        if name in FIXTURES:
            return str(request.getfixturevalue(name))
        if name not in made:
            made[name] = save_random(CONFIGS[name], tmp_path_factory.mktemp("model"))
        return made[name]

    return folder


def engine_on(
    folder: str | Path, device: str, dtype: Any = "float32", **given: Any
) -> RerankEngine:
    return RerankEngine(str(folder), device=device, dtype=dtype, normalize=False, **given)


def scores_on(folder: str | Path, device: str, dtype: Any = "float32", **given: Any) -> Any:
    with engine_on(folder, device, dtype, **given) as engine:
        return np.array(engine.score(QUERY, DOCUMENTS))


def noise_of(dtype: str, expected: npt.NDArray[np.float64]) -> float:
    # one of the tiny models gives all texts nearly the same score
    return EXACT if dtype == "float32" else NOISE[dtype] * max(float(np.std(expected)), 0.05)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("model", MODELS)
def test_float32_equals_the_cpus(model: str, device: str, models: Callable[[str], str]) -> None:
    folder = models(model)
    expected = scores_on(folder, "cpu")
    for max_batch_tokens in (None, 100):
        scores = scores_on(folder, device, max_batch_tokens=max_batch_tokens)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("dtype", list(NOISE))
@pytest.mark.parametrize(
    ("model", "device"),
    [
        ("modernbert", "cpu"),
        ("gemma", "cpu"),
        *(pytest.param(m, "cuda", marks=needs_cuda) for m in MODELS),
    ],
)
def test_half_precision_stays_close(
    model: str, dtype: str, device: str, models: Callable[[str], str]
) -> None:
    folder = models(model)
    expected = scores_on(folder, "cpu")
    scores = scores_on(folder, device, dtype)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=noise_of(dtype, expected))


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("model", MODELS)
def test_a_batch_is_handed_over_without_waiting_for_the_device(
    model: str, device: str, models: Callable[[str], str]
) -> None:
    loaded = load(EngineConfig(models(model), device=device, dtype="bfloat16"))
    (scorer,) = loaded.scorers
    ids = [np.arange(5, 5 + n, dtype=np.int32) for n in (40, 12, 7)]
    batch = [TokenSequence(each, 4, len(each) - 1) for each in ids]
    before = np.asarray(scorer.score(batch))  # kernels are loaded at their first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        logits = scorer.score(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_array_equal(np.asarray(logits), before)


@pytest.mark.parametrize("device", [CUDA])
def test_released_models_take_the_flash_kernel(device: str) -> None:
    """Heads and precision of those in the catalog; without the kernel all is right, and slow."""
    for head_dim in (64, 128, 256):
        for dtype in (torch.bfloat16, torch.float16):
            assert has_flash_kernel(torch.empty(1, 2, head_dim, device=device, dtype=dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_long_document_among_short_ones(dtype: str, device: str, tmp_path: Path) -> None:
    """Windows of attention, global layers and positions beyond 512."""
    config = {**SMALL_MODERNBERT, "max_position_embeddings": 4096, "local_attention": 64}
    folder = save_random(ModernBertConfig(**config), tmp_path / "long")
    documents = ["a bear " * 700, *DOCUMENTS[:6]]
    with engine_on(folder, "cpu", max_length=4096) as engine:
        expected = np.array(engine.score(QUERY, documents))
    with engine_on(folder, device, dtype, max_length=4096) as engine:
        scores = engine.score(QUERY, documents)
        assert max(scores.usage.pair_tokens) > 3_000
    np.testing.assert_allclose(scores, expected, rtol=0, atol=noise_of(dtype, expected))


@pytest.mark.parametrize("device", DEVICES)
def test_two_engines_on_one_device(device: str) -> None:
    """Called from threads at the same time, each gives its own model's scores."""
    folders = [GOLDEN / "xlmr", GOLDEN / "gemma"]
    expected = [scores_on(folder, "cpu") for folder in folders]
    engines = [engine_on(folder, device) for folder in folders]
    try:
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(engines[n % 2].score, QUERY, DOCUMENTS) for n in range(12)]
            for n, call in enumerate(calls):
                np.testing.assert_allclose(call.result(60), expected[n % 2], rtol=0, atol=EXACT)
    finally:
        for engine in engines:
            engine.close()


@contextmanager
def memory_of(device: str, mib: int) -> Iterator[None]:
    """Let torch allocate only so much on a CUDA device."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((mib << 20) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_device_makes_batches_smaller(
    device: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A budget that is far too large: memory runs out for real, and every call is answered."""
    documents = [f"{n} panda " * 120 for n in range(3_000)]
    with engine_on("tiny", device, dtype) as engine:
        expected = engine.score(QUERY, documents[:300])
    with (
        memory_of(device, 256),
        engine_on(
            "tiny", device, dtype, max_batch_tokens=1_000_000, max_queued_pairs=10_000
        ) as engine,
    ):
        scores = engine.score(QUERY, documents)
        assert "out of memory: batches shrink" in caplog.text
        noise = noise_of(dtype, np.array(expected))
        np.testing.assert_allclose(scores[:300], expected, rtol=0, atol=noise)
        retries = engine.stats().retries
        assert engine.score(QUERY, documents[:20]) == pytest.approx(expected[:20], abs=noise)
        stats = engine.stats()
        assert (stats.retries, stats.failures, stats.state) == (retries, 0, "ready")


@pytest.mark.parametrize("device", DEVICES)
async def test_a_call_that_is_cancelled_while_the_device_computes(device: str) -> None:
    with engine_on("tiny", device, max_batch_tokens=512) as engine:
        expected = engine.score(QUERY, ["a bear of China"])
        call = asyncio.create_task(engine.ascore(QUERY, [f"{n} panda " * 60 for n in range(400)]))
        await until(lambda: engine.stats().in_flight > 0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await engine.ascore(QUERY, ["a bear of China"], timeout_s=PATIENCE_S) == (
            pytest.approx(expected, abs=EXACT)
        )
        await until(lambda: engine.stats().in_flight == 0)
        assert engine.stats().queued_pairs == 0


@pytest.mark.parametrize("device", [CUDA])
def test_closing_gives_the_devices_memory_back(device: str) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with engine_on("tiny", device) as engine:
        engine.score(QUERY, DOCUMENTS)
        assert torch.cuda.memory_allocated() > before + (20 << 20)
    wait_until(lambda: torch.cuda.memory_allocated() < before + (10 << 20))


class Losing:
    """A scorer that loses its device at the second batch: a kernel asserts."""

    padded = False

    def __init__(self, scorer: Any, device: str) -> None:
        self._scorer, self._device = scorer, device
        self._batches = 0

    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        self._batches += 1
        if self._batches == 2:
            # a row that is not there; nobody waits for the kernel that reads it
            table = torch.zeros(4, 4, device=self._device)
            table[torch.tensor([1 << 20]).to(self._device)].sum()
        logits: npt.ArrayLike = self._scorer.score(batch)
        return logits


def lose(device: str) -> None:
    """Lose the device while calls wait; in a process of its own, which cannot use it again."""
    config = EngineConfig("tiny", device=device, max_batch_tokens=64)
    model = load(config)
    object.__setattr__(model, "scorers", (Losing(model.scorers[0], device),))
    engine = RerankEngine.on(model, config)
    calls = [in_thread(engine.score, QUERY, DOCUMENTS) for _ in range(4)]
    errors = {type(call.exception(60)).__name__ for call in calls}
    wait_until(lambda: not engine.is_alive)
    sys.stdout.write(" ".join([*errors, engine.stats().state]))


@pytest.mark.parametrize("device", [CUDA])
def test_a_lost_device_answers_all_callers(device: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from gpu.test_on_a_device import lose; lose({device!r})"],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.split() == ["EngineFailedError", "failed"], done.stderr[-2_000:]
