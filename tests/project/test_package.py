"""What the package promises before anything is loaded."""

from __future__ import annotations

import pickle
from importlib.resources import files

import pytest
from background import Background
from paths import ROOT

import bge_rerank_integrations
from bge_rerank_integrations import (
    InputError,
    MissingExtraError,
    NonFiniteScoreError,
    RemoteError,
    RerankError,
    ScoringError,
)


def loading(program: str, modules: set[str]) -> Background:
    """A fresh process that prints those of the modules that it has loaded after the program."""
    told = f"print(*sorted(set(sys.modules) & {modules!r}))"
    return Background("-c", f"import sys; {program}; {told}")


def loaded_by(program: Background) -> list[str]:
    done = program.wait()
    assert not done.returncode, done.stderr
    return done.stdout.split()


IMPORT = loading(
    "import bge_rerank_integrations as p; p.EngineConfig(); p.Ranking()",
    {"torch", "transformers", "pydantic", "llama_index", "langchain_core", "numpy"},
)
# transformers' model classes take two seconds to import, TorchDynamo one, the hub's a bit
FIRST_SCORE = loading(
    "from bge_rerank_integrations import RerankEngine; "
    "RerankEngine.shared('tiny', device='cpu').rerank('query', ['document'])",
    {"transformers", "torch._dynamo", "huggingface_hub"},
)


@pytest.mark.background(IMPORT)
def test_importing_the_package_loads_neither_torch_nor_a_framework() -> None:
    assert loaded_by(IMPORT) == []


@pytest.mark.background(FIRST_SCORE)
def test_the_first_score_waits_for_no_import_that_it_can_do_without() -> None:
    assert loaded_by(FIRST_SCORE) == []


def test_every_public_name_is_there() -> None:
    for name in bge_rerank_integrations.__all__:
        assert getattr(bge_rerank_integrations, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Engine'"):
        _ = bge_rerank_integrations.Engine


def test_the_public_names_change_only_on_purpose() -> None:
    assert set(bge_rerank_integrations.__all__) == {
        "CallOptions",
        "ConfigurationError",
        "DeadlineError",
        "EngineClosedError",
        "EngineConfig",
        "EngineFailedError",
        "ForkedProcessError",
        "InputError",
        "MissingExtraError",
        "ModelLoadError",
        "NonFiniteScoreError",
        "OverloadedError",
        "RankedDocument",
        "Ranking",
        "RemoteError",
        "RemoteReranker",
        "RerankEngine",
        "RerankError",
        "Reranker",
        "Scores",
        "ScoringError",
        "TokenUsage",
        "UnsupportedModelError",
        "__version__",
    }


def test_the_metadata_name_the_licenses_of_the_code_and_of_the_weights() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    root = ROOT
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["license"] == "MIT AND Apache-2.0"
    tiny = "bge_rerank_integrations/models/tiny"
    files_named = ["LICENSE", f"{tiny}/LICENSE", f"{tiny}/LICENSE-MiniLM"]
    assert project["license-files"] == files_named
    assert (root / "LICENSE").read_text("utf-8").startswith("MIT License")
    weights = (files("bge_rerank_integrations") / "models/tiny/LICENSE").read_text("utf-8")
    assert weights.startswith("Copyright 2026 The bge-rerank-integrations authors")
    assert "sentence-transformers/all-MiniLM-L6-v2" in weights
    assert "[yyyy]" not in weights
    base = (files("bge_rerank_integrations") / "models/tiny/LICENSE-MiniLM").read_text("utf-8")
    assert "Copyright (c) Microsoft Corporation" in base
    # the same terms as the code's
    terms = "Permission is hereby granted"
    assert base.partition(terms)[2] == (root / "LICENSE").read_text("utf-8").partition(terms)[2]


def test_the_package_is_typed() -> None:
    assert (files("bge_rerank_integrations") / "py.typed").is_file()


@pytest.mark.parametrize(
    "error",
    [
        InputError("document 3 is not a string", 3),
        ScoringError("it failed", 2),
        NonFiniteScoreError(4, float("nan")),
        MissingExtraError("langchain"),
        RemoteError("it failed", 502),
    ],
)
def test_errors_survive_pickling(error: RerankError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert getattr(again, "index", None) == getattr(error, "index", None)


def test_a_missing_extra_names_its_cure() -> None:
    assert 'pip install "bge-rerank-integrations[langchain]"' in str(MissingExtraError("langchain"))
