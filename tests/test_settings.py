from __future__ import annotations

import math
import os
import pickle
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from bge_rerank_integrations import ConfigurationError, EngineConfig
from bge_rerank_integrations.setting_types import CallOverrides, ConfigKeywords
from bge_rerank_integrations.settings import (
    SETTINGS,
    CallOptions,
    default_of,
    description_of,
    overridden,
    read_setting,
    split_settings,
)

ENGINE_SETTINGS = {field.name for field in fields(EngineConfig)}


def test_settings_are_frozen_hashable_and_picklable() -> None:
    config = EngineConfig("tiny", device=["cpu", "cpu"])
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
        ("device", (None,)),
        ("dtype", "int4"),
        ("max_length", 15),
        ("max_length", 512.0),
        ("max_length", True),
        ("query_max_length", 0),
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
    kind: Any = EngineConfig if setting in ENGINE_SETTINGS else CallOptions
    with pytest.raises(ConfigurationError, match=f"^{setting} must be .*, got ") as caught:
        kind(**{setting: value})
    assert repr(value) in str(caught.value)


def test_a_query_must_leave_tokens_for_a_document() -> None:
    with pytest.raises(ConfigurationError, match=r"query_max_length must be less than .*\(64\)"):
        CallOptions(max_length=64, query_max_length=64)
    assert CallOptions(query_max_length=512).max_length is None


def test_the_keyword_arguments_are_the_settings() -> None:
    assert get_type_hints(CallOverrides) == get_type_hints(CallOptions)
    assert {"model", *get_type_hints(ConfigKeywords)} == ENGINE_SETTINGS


def test_no_device_is_any_device_and_paths_are_texts() -> None:
    config = EngineConfig(Path("models") / "mine", device=None, cache_folder=Path("cache"))
    assert config == EngineConfig(os.path.join("models", "mine"), cache_folder="cache")
    assert config.device == "auto"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("use_fp16", 'use dtype="float16"'),
        ("model_name", "use model"),
        ("top_k", "use top_n"),
        ("batch_size", "use max_batch_tokens"),
        ("trust_remote_code", "leave it out"),
        ("model_kwargs", "device= or dtype="),
        ("cross_encoder_kwargs", "device= or dtype="),
        ("top_n", r"give it to rerank\(\)"),
        ("max_lenght", r"did you mean max_length\?"),
        ("xyz", "there are cache_folder, .*timeout_s"),
    ],
)
def test_a_name_that_is_no_setting_is_answered_with_ours(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is not a setting here: .*{meant}"):
        split_settings("tiny", {name: 1})


def test_a_call_refuses_what_is_decided_when_the_model_is_loaded() -> None:
    with pytest.raises(ConfigurationError, match="device is not a setting here: there are calib"):
        overridden(CallOptions(), {"device": "cpu"})
    assert overridden(CallOptions(max_length=64), {"normalize": False}).max_length == 64


def test_settings_are_split_by_what_they_decide() -> None:
    config, options = split_settings("tiny", {"dtype": "float32", "max_length": 64})
    assert (config, options) == (EngineConfig("tiny", dtype="float32"), CallOptions(max_length=64))
    assert split_settings(config, {"normalize": False}) == (config, CallOptions(normalize=False))
    with pytest.raises(ConfigurationError, match="max_tokens is not a setting here: use max_l"):
        split_settings("tiny", {"max_tokens": 3})


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_described_and_its_default_reads_back(setting: str) -> None:
    assert description_of(setting).endswith(".")
    default = default_of(setting)
    assert read_setting(setting, str(default)) == default


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ("device", "cuda:0,cuda:1", ("cuda:0", "cuda:1")),
        ("cutoff_layers", "16,8", (8, 16)),
        ("cutoff_layers", "None", None),
        ("normalize", "False", False),
        ("timeout_s", "inf", math.inf),
        ("queue_timeout_s", "2", 2.0),
    ],
)
def test_a_setting_is_read_from_text(setting: str, text: str, value: Any) -> None:
    assert read_setting(setting, text) == value


@pytest.mark.parametrize(
    ("setting", "text"),
    [("max_length", "many"), ("normalize", "maybe"), ("cutoff_layers", "8,"), ("dtype", "int4")],
)
def test_a_text_that_is_no_value_is_refused(setting: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{setting} must be .*, got '{text}'"):
        read_setting(setting, text)
