"""The README and the pages of docs/ do what they say."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from paths import ROOT
from typer.testing import CliRunner

from bge_rerank_integrations.cli.app import app

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n^```text\n(?P<shown>.*?)^```)?", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def blocks(path: Path) -> Iterator[tuple[str, str | None]]:
    """The Python blocks of a page, and what it shows that each prints."""
    for block in _BLOCK.finditer(path.read_text("utf-8")):
        yield block["code"], block["shown"]


@pytest.mark.parametrize(
    "path", [path for path in PAGES if any(blocks(path))], ids=lambda path: path.name
)
def test_the_python_of_a_page_runs_and_prints_what_is_shown(path: Path) -> None:
    names: dict[str, Any] = {"__name__": path.stem}
    for code, shown in blocks(path):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(path), "exec"), names)
        if shown is not None:
            assert printed.getvalue() == shown, code


def test_the_page_on_evaluation_shows_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
    example = r"^```\nbge-rerank (eval docs/[^\n]*)\n```\n\n```text\n(.*?)```"
    commands = re.findall(example, page, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    monkeypatch.chdir(ROOT)
    for command, shown in commands:
        printed = CliRunner().invoke(app, command.split()).stdout
        lines = [line.split("\t") for line in printed.splitlines()]
        for line in filter(None, shown.splitlines()):
            cells = re.split(r"\s{2,}", line)
            assert cells in [each[: len(cells)] for each in lines], printed


def test_readme_and_start_show_the_same_ranking(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = next(blocks(ROOT / "README.md"))
    _, shown = next(blocks(ROOT / "docs" / "index.md"))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith(shown or "nothing is shown")


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_tables_are_todays(tables: ModuleType) -> None:
    for page in tables.PAGES:
        text = page.read_text("utf-8")
        assert tables.with_tables(text) == text, f"run docs/tables.py: {page.name}"
    shown = "".join(page.read_text("utf-8") for page in tables.PAGES)
    for name in ("EngineConfig", "CallOptions", "ContextOptions", "catalog"):
        assert f"<!-- {name} -->\n" in shown


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(path: Path) -> None:
    repository = "bge-rerank-integrations/bge-rerank-integrations"
    own = re.compile(
        rf"https://(?:github\.com/{repository}/(?:blob|tree|raw)|raw\.githubusercontent\.com/{repository})/(?:main/)?(.*)"
    )
    for link in _LINK.findall(path.read_text("utf-8")):
        target, _, anchor = link.partition("#")
        if found := own.fullmatch(target):
            file = ROOT / found[1]
        elif "://" in target:
            continue
        else:
            assert path.parent != ROOT, f"{link} leads nowhere on a package index"
            file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), link
