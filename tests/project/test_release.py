"""What a release is made with agrees with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT

from bge_rerank_integrations import __version__

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ADDRESS = "https://github.com/bge-rerank-integrations/bge-rerank-integrations"

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")


def projects() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    folders = [ROOT, *(ROOT / "distributions").iterdir()]
    read = (tomllib.loads((folder / "pyproject.toml").read_text("utf-8")) for folder in folders)
    return {each["project"]["name"]: each for each in read}


def test_the_distributions_have_the_packages_version_and_need_it() -> None:
    main, *thin = projects().values()
    assert len(thin) == 2
    assert main["project"]["urls"]["Repository"] == ADDRESS
    for each in thin:
        assert each["project"]["version"] == __version__
        assert each["project"]["requires-python"] == main["project"]["requires-python"]
        assert each["project"]["urls"]["Repository"] == ADDRESS
        [needed] = each["project"]["dependencies"]
        assert re.fullmatch(rf"bge-rerank-integrations\[[\w-]+\]>={__version__},<0\.2", needed)


def test_llamahub_finds_the_class() -> None:
    hub = projects()["llama-index-postprocessor-bge-rerank"]["tool"]["llamahub"]
    folder = ROOT / "distributions" / "llama-index-postprocessor-bge-rerank"
    module = folder / hub["import_path"].replace(".", "/") / "__init__.py"
    [name] = hub["class_authors"]
    assert f'__all__ = ["{name}"]' in module.read_text("utf-8")
    # llama_index and llama_index.postprocessor belong to no single distribution
    assert [path.parent.name for path in folder.rglob("__init__.py")] == ["bge_rerank"]


def test_continuous_integration_runs_on_every_python_that_is_promised() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    classifiers = projects()["bge-rerank-integrations"]["project"]["classifiers"]
    promised = [each.split(" :: ")[-1] for each in classifiers if re.search(r":: 3\.\d+$", each)]
    assert jobs["all"]["strategy"]["matrix"]["python"] == promised


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_scripts_that_are_there(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for script in re.findall(
        r"(?:^|\s)(\.ci/\w+)", " ".join(step.get("run", "") for step in steps)
    ):
        assert (ROOT / script).stat().st_mode & 0o111, script


def test_the_changelog_and_the_citation_have_the_version() -> None:
    heading = rf"^## {re.escape(__version__)} — (unreleased|\d{{4}}-\d\d-\d\d)$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert citation["repository-code"] == ADDRESS
