"""The example in the package's docstring runs as it stands."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from bge_rerank_integrations import evaluation


def test_the_example_of_the_docstring_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.with_name("scifact"))
    monkeypatch.chdir(folder.parent)
    lines = inspect.cleandoc(evaluation.__doc__ or "").splitlines()
    example = [line[4:] for line in lines if line.startswith("    ")]
    names: dict[str, Any] = {}
    exec("\n".join(example), names)
    assert [system.name for system in names["report"].systems] == ["BM25", "tiny"]
