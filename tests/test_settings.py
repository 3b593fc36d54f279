from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from bge_rerank_integrations import ConfigurationError, EngineConfig


def test_settings_are_frozen_hashable_and_picklable() -> None:
    config = EngineConfig("tiny", device=["cpu", "cpu"])  # type: ignore[arg-type]
    assert config.device == ("cpu", "cpu")
    assert config == pickle.loads(pickle.dumps(config))
    assert len({config, EngineConfig("tiny", device=("cpu", "cpu"))}) == 1
    with pytest.raises(FrozenInstanceError):
        config.model = "other"  # type: ignore[misc]


def test_devices_are_always_a_tuple() -> None:
    assert EngineConfig(device="cuda:1").devices == ("cuda:1",)
    assert EngineConfig(device=("cuda:0", "cuda:1")).devices == ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model", ""),
        ("model", None),
        ("revision", ""),
        ("cache_folder", 3),
        ("device", "gpu"),
        ("device", ()),
        ("device", ("auto", "cpu")),
        ("device", ("cpu", 1)),
        ("device", None),
        ("dtype", "int4"),
        ("max_length", 15),
        ("max_length", 512.0),
        ("max_length", True),
        ("query_max_length", 0),
        ("query_max_length", 512),
        ("max_batch_tokens", 0),
        ("normalize", "yes"),
        ("local_files_only", 1),
        ("long_documents", "split"),
        ("max_queued_pairs", 0),
        ("max_cached_tokens", -1),
        ("queue_timeout_s", -1),
        ("queue_timeout_s", float("nan")),
        ("queue_timeout_s", True),
    ],
)
def test_a_wrong_value_is_refused_with_what_came(setting: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{setting} must be .*, got ") as caught:
        EngineConfig(**{setting: value})
    assert repr(value) in str(caught.value)
