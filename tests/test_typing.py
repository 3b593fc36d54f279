"""Type checkers take what the documentation shows, and refuse what cannot work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "typing_cases"
#: each line of code after the imports is a mistake
MISTAKES = {
    number
    for number, line in enumerate((CASES / "refused.py").read_text("utf-8").splitlines(), 1)
    if re.match(r"\w+\(|\w+\.", line)
}


def run(*command: str) -> str:
    """Run a checker on both files from the root; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_there_are_mistakes() -> None:
    assert len(MISTAKES) == 12


def test_mypy_takes_every_documented_value_and_finds_every_mistake() -> None:
    cache = ROOT / ".mypy_cache" / "typing_cases"
    config = f"--config-file={CASES / 'mypy.ini'}"
    found = run("mypy", config, f"--cache-dir={cache}", "--no-error-summary", str(CASES))
    errors = re.findall(r"(\w+)\.py:(\d+): error:", found)
    assert {name for name, _ in errors} == {"refused"}, found
    assert {int(line) for _, line in errors} == MISTAKES


@pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed"
)
def test_pyright_takes_every_documented_value_and_finds_every_mistake(tmp_path: Path) -> None:
    config = tmp_path / "pyrightconfig.json"
    settings = {"typeCheckingMode": "strict", "include": [str(CASES)]}
    config.write_text(json.dumps(settings), "utf-8")
    found = run(
        "basedpyright", "--project", str(config), "--pythonpath", sys.executable, "--outputjson"
    )
    report = json.loads(found)["generalDiagnostics"]
    assert {Path(each["file"]).stem for each in report} == {"refused"}, report
    assert {each["range"]["start"]["line"] + 1 for each in report} == MISTAKES
