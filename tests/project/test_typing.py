"""Type checkers take what the documentation shows, and refuse what cannot work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest
from background import Background
from paths import ROOT

CASES = ROOT / "tests" / "typing_cases"
#: each line of code after the imports is a mistake
MISTAKES = {
    number
    for number, line in enumerate((CASES / "refused.py").read_text("utf-8").splitlines(), 1)
    if re.match(r"\w+\(|\w+\.", line)
}


def checker(*command: str) -> Background:
    """A checker of both files, run from the root."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Background("-m", *command, cwd=ROOT, env=environment)


MYPY = checker(
    "mypy",
    f"--config-file={CASES / 'mypy.ini'}",
    f"--cache-dir={ROOT / '.mypy_cache' / 'typing_cases'}",
    "--no-error-summary",
    str(CASES),
)
PYRIGHT = checker(
    "basedpyright", "--project", str(CASES), "--pythonpath", sys.executable, "--outputjson"
)


def found_by(program: Background) -> str:
    """What a checker prints, which is to find mistakes."""
    done = program.wait()
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_there_are_mistakes() -> None:
    assert len(MISTAKES) == 12


@pytest.mark.background(MYPY)
def test_mypy_takes_every_documented_value_and_finds_every_mistake() -> None:
    found = found_by(MYPY)
    errors = re.findall(r"(\w+)\.py:(\d+): error:", found)
    assert {name for name, _ in errors} == {"refused"}, found
    assert {int(line) for _, line in errors} == MISTAKES


@pytest.mark.background(PYRIGHT)
@pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed"
)
def test_pyright_takes_every_documented_value_and_finds_every_mistake() -> None:
    report = json.loads(found_by(PYRIGHT))["generalDiagnostics"]
    assert {Path(each["file"]).stem for each in report} == {"refused"}, report
    assert {each["range"]["start"]["line"] + 1 for each in report} == MISTAKES
