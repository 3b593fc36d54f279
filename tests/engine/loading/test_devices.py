from __future__ import annotations

import pytest
import torch

from bge_rerank_integrations import ConfigurationError, RerankEngine
from bge_rerank_integrations.engine.loading import devices
from bge_rerank_integrations.setting_types import Dtype

CPU = torch.device("cpu")


def test_auto_is_a_device_that_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else devices.resolve_device("auto").type
    assert devices.resolve_device("auto").type == expected


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"sees here \(cpu.*\), got 'cuda:99'"):
        devices.resolve_device("cuda:99")


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_device_beyond_the_last_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    backend = getattr(torch, kind)
    monkeypatch.setattr(backend, "is_available", lambda: True)
    monkeypatch.setattr(backend, "device_count", lambda: 2)
    assert devices.resolve_device(kind) == torch.device(kind)
    assert devices.resolve_device(f"{kind}:1") == torch.device(kind, 1)
    for number in (2, 7):
        with pytest.raises(ConfigurationError, match=rf"{kind}:0, {kind}:1.*'{kind}:{number}'"):
            devices.resolve_device(f"{kind}:{number}")


def test_a_named_precision_is_taken() -> None:
    assert devices.resolve_dtype("float16", CPU) is torch.float16
    assert devices.resolve_dtype("float32", CPU) is torch.float32


@pytest.mark.parametrize(
    ("times", "dtype"),
    [
        # native
        ({"float32": 5.0, "bfloat16": 2.6}, torch.bfloat16),
        # emulated
        ({"float32": 5.0, "bfloat16": 9.0}, torch.float32),
        # little is gained, or the machine is busy
        ({"float32": 5.0, "bfloat16": 4.5}, torch.float32),
        # no oneDNN, or none that computes it
        ({"float32": 5.0}, torch.float32),
    ],
)
def test_a_cpu_gets_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "cpu_times", lambda: times)
    assert devices.resolve_dtype("auto", CPU) is dtype


def test_a_layer_is_timed_once_in_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    times = devices.cpu_times()
    assert times.keys() >= {"float32"}
    assert all(0 < seconds < 10 for seconds in times.values())
    assert devices.cpu_times() is times
    # a torch without oneDNN's bfloat16 never computes it: that may take seconds
    monkeypatch.setattr(devices, "has_prepacked", lambda _: False)
    assert devices.cpu_times.__wrapped__().keys() == {"float32"}


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_stats_say_what_auto_chose_by(dtype: Dtype) -> None:
    with RerankEngine("tiny", dtype=dtype, device="cpu") as engine:
        times = engine.stats().dtype_times
        assert engine.dtype == str(devices.resolve_dtype(dtype, CPU)).removeprefix("torch.")
    assert times == (devices.cpu_times() if dtype == "auto" else {})


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [
        ("cuda", (8, 0), torch.bfloat16),
        ("cuda", (7, 5), torch.float16),
        ("mps", None, torch.float16),
        ("xpu", None, torch.float32),
    ],
)
def test_an_accelerator_gets_the_half_precision_it_computes(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    capability: tuple[int, int] | None,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert devices.resolve_dtype("auto", torch.device(device)) is dtype


def test_batches_are_larger_where_the_device_is() -> None:
    on_cpu = devices.default_batch_tokens(CPU)
    assert on_cpu < devices.default_batch_tokens(torch.device("cuda"))


@pytest.mark.parametrize(("threads", "tokens"), [(1, 512), (2, 512), (4, 1_024), (64, 2_048)])
def test_batches_in_8_bits_stay_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, threads: int, tokens: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert devices.default_batch_tokens(CPU, torch.int8) == tokens
