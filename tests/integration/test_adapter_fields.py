"""The settings that both integrations show, and the engine that they find."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from fake_reranker import FakeReranker
from pydantic import ValidationError

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.adapter_fields import EngineFields, RerankFields
from bge_rerank_integrations.errors import ModelLoadError
from bge_rerank_integrations.setting_types import EngineKeywords, PathOrName
from bge_rerank_integrations.settings import (
    SETTINGS,
    EngineConfig,
    default_of,
    description_of,
)


class Component(RerankFields):
    """What an integration does with the settings."""

    @property
    def engine(self) -> Any:
        return self._find()


class LockedReranker(FakeReranker):
    """Neither pickles nor deep-copies, like a client that holds a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.fixture
def shared(xlmr: str) -> Iterator[RerankEngine]:
    with RerankEngine.shared(xlmr, max_length=64) as engine:
        yield engine


def test_every_setting_is_a_field_as_it_is_declared() -> None:
    shown = {
        name: (field.default, field.description)
        for name, field in EngineFields.model_fields.items()
        if name not in ("reranker", "lazy")
    }

    assert shown == {name: (default_of(name), description_of(name)) for name in SETTINGS}
    # the fields take what the engine takes
    types = get_type_hints(EngineKeywords) | {"model": PathOrName}
    shown_types = get_type_hints(EngineFields)
    assert {name: shown_types[name] for name in SETTINGS} == types


def test_the_model_may_be_positional_and_a_path(shared: RerankEngine, xlmr: str) -> None:
    component = Component(Path(xlmr), max_length=64, device=None)

    assert component.engine == shared
    assert (component.model, component.device) == (xlmr, "auto")
    assert next(iter(inspect.signature(Component).parameters)) == "model"
    assert inspect.signature(Component).parameters["model"].default == default_of("model")
    with pytest.raises(ValidationError, match="got both reranker= and model="):
        Component(EngineConfig().model, reranker=shared)


def test_equal_settings_share_one_engine(shared: RerankEngine, xlmr: str) -> None:
    first = Component(model=xlmr, max_length=64, top_n=1)
    second = Component(model=xlmr, max_length=64, score_threshold=0.5)

    assert first.engine == second.engine == shared


def test_components_with_other_options_share_the_model(shared: RerankEngine, xlmr: str) -> None:
    other = Component(model=xlmr, max_length=32, normalize=False, timeout_s=20.0)

    assert other.engine != shared
    assert other.engine == shared.with_options(max_length=32, normalize=False, timeout_s=20.0)
    [score] = [kept.score for kept in other.engine.rerank("query", ["document"])]
    assert score == shared.score("query", ["document"], max_length=32, normalize=False)[0]


def test_a_model_that_is_not_there_is_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError):
        Component(model=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("top_n", 0),
        ("top_n", -10),
        ("top_n", True),
        ("top_n", 2.5),
        ("top_n", "3"),
        ("score_threshold", float("nan")),
        ("score_threshold", float("inf")),
        ("score_threshold", "high"),
        ("prune", float("nan")),
        ("prune", "low"),
        ("prune_mark", None),
        ("prune_share", 1.5),
        ("prune_share", float("nan")),
        ("model", ""),
        ("device", "gpu"),
        ("device", []),
        ("dtype", "int4"),
        ("max_length", 8),
        ("max_length", 512.0),
        ("query_max_length", 0),
        ("max_batch_tokens", 0),
        ("normalize", "yes"),
        ("long_documents", "summarise"),
        ("max_queued_pairs", 0),
        ("queue_timeout_s", -1.0),
        ("instruction", ""),
        ("max_document_tokens", 0),
        ("timeout_s", "soon"),
        ("compress_ratio", 3),
        ("cutoff_layers", [0]),
        ("batch_size", 32),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=setting):
        Component(**{setting: value})


def test_the_messages_say_what_is_expected() -> None:
    with pytest.raises(ValidationError, match=r"top_n must be None or .* at least 1, got '3'"):
        Component(top_n="3")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r'use_fp16 is not a setting.*dtype="float16"'):
        Component(use_fp16=True)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="top_k is not a setting here: use top_n"):
        Component(top_k=3)  # type: ignore[call-arg]


def test_what_to_keep_may_be_assigned() -> None:
    component = Component(reranker=FakeReranker())

    component.top_n = None
    component.score_threshold = 0.25
    component.prune = 0.05

    assert (component.top_n, component.score_threshold, component.prune) == (None, 0.25, 0.05)


@pytest.mark.parametrize(
    ("setting", "value"), [("top_n", -10), ("top_n", True), ("score_threshold", float("nan"))]
)
def test_a_refused_assignment_changes_nothing(setting: str, value: Any) -> None:
    component = Component(reranker=FakeReranker(), top_n=2, score_threshold=0.5)

    with pytest.raises(ValidationError, match=setting):
        setattr(component, setting, value)

    assert (component.top_n, component.score_threshold) == (2, 0.5)


def test_engine_settings_are_frozen() -> None:
    component = Component(reranker=FakeReranker())

    with pytest.raises(ValidationError, match="frozen"):
        component.max_length = 128


def test_a_ready_engine_shows_its_settings(shared: RerankEngine, xlmr: str) -> None:
    component = Component(reranker=shared)

    assert component.engine is shared
    assert component.engine_config == shared.config
    assert (component.model, component.max_length) == (xlmr, 64)
    settings = asdict(shared.config) | asdict(shared.options)
    assert {name: getattr(component, name) for name in SETTINGS} == settings


def test_any_other_reranker_shows_its_model() -> None:
    assert Component(reranker=FakeReranker(model="remote")).model == "remote"


def test_a_ready_reranker_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "from fake_reranker import FakeReranker\n"
        "from bge_rerank_integrations.adapter_fields import RerankFields\n"
        "RerankFields(reranker=FakeReranker())\n"
        "assert 'torch' not in sys.modules\n"
    )

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_settings_that_agree_with_the_reranker_are_accepted(shared: RerankEngine) -> None:
    settings = asdict(shared.config) | asdict(shared.options)

    assert Component(reranker=shared, **settings).engine is shared
    assert Component(reranker=FakeReranker(model="remote"), model="remote").model == "remote"


@pytest.mark.parametrize(
    ("setting", "value"), [("dtype", "float32"), ("instruction", "Which is best?")]
)
def test_settings_that_contradict_the_reranker_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"got both reranker= and {setting}="):
        Component(reranker=FakeReranker(), **{setting: value})


def test_a_model_that_is_not_the_engines_is_refused(shared: RerankEngine) -> None:
    with pytest.raises(ValidationError, match="got both reranker= and model="):
        Component(reranker=shared, model="other")


def test_a_reranker_must_be_able_to_rerank() -> None:
    with pytest.raises(ValidationError, match=r"must have model, rerank\(\) .*, got str"):
        Component(reranker="BAAI/bge-reranker-base")


def test_another_components_reranker_is_taken() -> None:
    reranker = FakeReranker()

    assert Component(reranker=EngineFields(reranker=reranker)).engine is reranker


def test_devices_may_be_a_list_as_json_has_them() -> None:
    reranker = FakeReranker(model="two cards")
    reranker.config = EngineConfig(model="two cards", device=("cuda:0", "cuda:1"))  # type: ignore[attr-defined]

    component = Component(reranker=reranker, device=["cuda:0", "cuda:1"])

    assert component.device == ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, Component.model_copy, lambda it: it.model_copy(deep=True)],
    ids=["copy", "deepcopy", "model_copy", "model_copy_deep"],
)
def test_a_copy_shares_the_reranker(duplicate: Callable[[Component], Component]) -> None:
    reranker = LockedReranker()
    component = Component(reranker=reranker, top_n=2)

    copied = duplicate(component)
    copied.top_n = 1

    assert copied.engine is reranker
    assert component.top_n == 2


def test_a_changed_copy_is_checked() -> None:
    component = Component(reranker=LockedReranker(), top_n=2)

    assert component.model_copy(update={"top_n": None}).engine is component.engine
    with pytest.raises(ValidationError, match="top_n"):
        component.model_copy(update={"top_n": 0})


def test_a_copy_with_another_setting_finds_its_own_engine(shared: RerankEngine, xlmr: str) -> None:
    component = Component(model=xlmr, max_length=64)

    changed = component.model_copy(update={"max_length": 32})

    assert component.engine == shared
    assert changed.engine == shared.with_options(max_length=32)
    assert changed.engine.max_length == changed.max_length == 32


def test_a_copy_of_another_config_finds_its_own_model(shared: RerankEngine, xlmr: str) -> None:
    component = Component(model=xlmr, max_length=64)

    changed = component.model_copy(update={"max_queued_pairs": 7})

    with changed.engine as engine:
        assert engine.config.max_queued_pairs == changed.max_queued_pairs == 7
    assert component.engine.is_alive


def test_a_copy_with_another_reranker_shows_its_model() -> None:
    component = Component(reranker=FakeReranker(model="one"))

    changed = component.model_copy(update={"reranker": FakeReranker(model="two")})

    assert changed.model == changed.engine.model == "two"


def test_pickle_finds_the_same_engine(shared: RerankEngine, xlmr: str) -> None:
    component = Component(model=xlmr, max_length=64, top_n=2, score_threshold=0.5)

    restored = pickle.loads(pickle.dumps(component))

    assert restored == component
    assert restored.engine == shared
