"""What a release is made with agrees with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

from bge_rerank_integrations import __version__

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ADDRESS = "https://github.com/bge-rerank-integrations/bge-rerank-integrations"

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")


CI = "./.github/workflows/ci.yml"


def read(path: Path) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text("utf-8"))
    return workflow


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
    jobs = read(ROOT / CI)["jobs"]
    classifiers = projects()["bge-rerank-integrations"]["project"]["classifiers"]
    promised = [each.split(" :: ")[-1] for each in classifiers if re.search(r":: 3\.\d+$", each)]
    assert jobs["all"]["strategy"]["matrix"]["python"] == promised


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", ())]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_scripts_that_are_there(path: Path) -> None:
    commands = " ".join(step.get("run", "") for step in steps(read(path)))
    for script in re.findall(r"(?:^|\s)(\.ci/\w+)", commands):
        assert (ROOT / script).stat().st_mode & 0o111, script


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_pinned_by_its_commit_and_says_which_version_that_is(path: Path) -> None:
    used = re.findall(r"uses: *(.+)$", path.read_text("utf-8"), re.MULTILINE)
    for action in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file(), action
        else:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_image_of_others_is_pinned_by_its_digest() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text("utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    images = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    images = [re.sub(r"\$\{(\w+)\}", lambda name: arguments[name[1]], each) for each in images]
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]
    images += [each["image"] for each in services.values() if "build" not in each]
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_where_pip_installs_torch_comes_without_cudas_libraries(path: Path) -> None:
    workflow = read(path)
    commands = " ".join(step.get("run", "") for step in steps(workflow))
    if "pip install" in commands or ".ci/run" in commands:
        wheels = "https://download.pytorch.org/whl/cpu"
        assert workflow["env"]["PIP_EXTRA_INDEX_URL"] == wheels
    # uv does not read pip's variable
    assert "uv pip" not in commands or workflow["env"]["UV_TORCH_BACKEND"] == "cpu"


def test_nothing_is_published_before_the_tests_and_the_packages_passed() -> None:
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]
    (tests,) = (name for name, job in jobs.items() if job.get("uses") == CI)
    publishing = [
        job
        for job in jobs.values()
        if any("pypi-publish" in step.get("uses", "") for step in job.get("steps", ()))
    ]
    assert [set(job["needs"]) for job in publishing] == [{tests, "build"}]
    # "on" is true in YAML 1.1
    assert "workflow_call" in read(ROOT / CI)[True]


def test_no_workflow_has_more_rights_than_its_jobs_name() -> None:
    for path in WORKFLOWS:
        assert read(path)["permissions"].get("contents") == "read", path.name
        assert "pull_request_target" not in path.read_text("utf-8")


def pins(version: str) -> dict[str, str]:
    """The packages that ``constraints.txt`` pins for a Python version."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"python_version": version}):
                name = canonicalize_name(requirement.name)
                assert name not in found, line
                found[name] = str(requirement.specifier)
    return found


def test_every_python_has_pins_for_what_it_is_tested_with() -> None:
    oldest, newest = pins("3.10"), pins("3.13")
    # packages that only newer versions of Python need or have
    few = {"ipython-pygments-lexers", "mteb", "narwhals", "polars", "polars-runtime-32"}
    assert newest.keys() - oldest.keys() <= few
    for name, specifier in {**oldest, **newest}.items():
        assert re.fullmatch(r"==[\w.]+", specifier), name
    assert {"torch", "transformers", "pytest", "hypothesis", "ruff", "twine"} <= oldest.keys()


def test_the_changelog_and_the_citation_have_the_version() -> None:
    heading = rf"^## {re.escape(__version__)} — (unreleased|\d{{4}}-\d\d-\d\d)$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert citation["repository-code"] == ADDRESS
