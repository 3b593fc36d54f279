"""``bge-rerank eval``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_reranker import FakeReranker
from typer.testing import CliRunner, Result

import bge_rerank_integrations
from bge_rerank_integrations import ConfigurationError
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.cli.options import model_settings


class FakeEngines(list):
    """Stands where the engine class is, and remembers what was opened and closed."""

    def __call__(self, model: str, **settings: Any) -> FakeEngines:
        self.append((model, settings))
        return self

    def __enter__(self) -> FakeReranker:
        return FakeReranker()

    def __exit__(self, *exception: object) -> None:
        self.append("closed")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
    engines = FakeEngines()
    monkeypatch.setattr(bge_rerank_integrations, "RerankEngine", engines, raising=False)
    return engines


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, engines: FakeEngines) -> Callable[..., Result]:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_piped_output_is_three_tables_with_tabs(
    evaluate, folder: Path, engines: FakeEngines
) -> None:
    result = evaluate(folder, "-k", 1, "-k", 2)
    assert result.exit_code == 0, result.output
    figures, comparisons, depths, rest = result.stdout.split("\n\n")
    header, before, after, blended = (line.split("\t") for line in figures.splitlines())
    assert header[:6] == ["system", "nDCG@10", "MRR@10", "recall@1", "recall@2", "MAP"]
    assert (before[0], after[0], after[-2:]) == ("BM25", "tiny", ["5", "5"])
    assert (blended[0], blended[-2:]) == ("tiny, blended", ["5", "5"])
    assert len(comparisons.splitlines()) == 4
    assert [line.split("\t")[0] for line in depths.splitlines()[1:]] == ["tiny", "tiny, blended"]
    assert (rest, result.stderr) == ("", "")
    assert engines == [("tiny", {}), "closed"]


def test_models_and_settings_are_rows_and_loaded_one_by_one(
    evaluate, folder: Path, engines: FakeEngines
) -> None:
    chosen = "m/n,max_length=64,dtype=float32,normalize=false"
    result = evaluate(folder, "--model", "tiny", "--model", chosen, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    names = ["BM25", "tiny", "tiny, blended", chosen, f"{chosen}, blended"]
    assert [system["name"] for system in report["systems"]] == names
    assert report["systems"][1]["values"]["MRR@10"]["q3"] == 0.0
    assert len(report["comparisons"]) == 10
    other = ("m/n", {"max_length": 64, "dtype": "float32", "normalize": False})
    assert engines == [("tiny", {}), "closed", other, "closed"]


def test_a_terminal_gets_tables_and_notes(
    evaluate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = evaluate(folder, "--max-queries", "2", "-k", "1")
    assert "cities: 2 queries, 5 documents" in result.stdout
    assert "\x1b[" in result.stdout
    assert result.stderr == "note: a sample of 2 of 3 queries\n"


def test_a_run_file_is_a_first_stage(evaluate, folder: Path) -> None:
    run = folder / "dense.run"
    run.write_text("q1 Q0 paris 1 3 x\nq1 Q0 berlin 2 2 x\nq1 Q0 bonn 3 1 x\n")
    report = json.loads(evaluate(folder, "--first-stage", run, "--depth", 2, "--json").stdout)
    before, after, _ = report["systems"]
    assert (before["name"], before["mean_ms"], after["pairs"]) == ("dense.run", None, 2)


def test_several_first_stages_are_fused_by_reciprocal_ranks(evaluate, folder: Path) -> None:
    run = folder / "dense.run"
    run.write_text("q1 Q0 paris 1 3 x\nq1 Q0 berlin 2 2 x\nq1 Q0 bonn 3 1 x\n")
    stages = ["--first-stage", "bm25", "--first-stage", run]
    report = json.loads(evaluate(folder, *stages, "--json").stdout)
    assert report["systems"][0]["name"] == "RRF of BM25 and dense.run"


@pytest.mark.parametrize(("weight", "same"), [(0, 1), (1, 0)])
def test_a_blend_at_its_ends_is_the_reranker_or_the_first_stage(
    evaluate, folder: Path, weight: int, same: int
) -> None:
    report = json.loads(evaluate(folder, "--retrieval-weight", weight, "--json").stdout)
    assert report["systems"][2]["values"] == report["systems"][same]["values"]


@pytest.mark.parametrize(("depth", "pairs"), [(1, 2), (2, 4), (100, 5)])
def test_depth_bounds_what_bm25_brings_to_each_query(
    evaluate, folder: Path, depth: int, pairs: int
) -> None:
    report = json.loads(evaluate(folder, "--depth", depth, "--json").stdout)
    # the first query shares a word with three documents, the second with two, the third with none
    assert report["systems"][1]["pairs"] == pairs


def test_candidate_lists_are_a_file(evaluate, lists: Path) -> None:
    result = evaluate(lists, "-k", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[2].split("\t")[-2] == "6"
    assert result.stderr == "note: 2 lists are all relevant or all not: left out\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--model", "tiny,size=3"], "settings after a model must be name=value with one of"),
        (["--model", "tiny,max_length"], "got 'max_length'"),
        (
            ["--model", "tiny,max_length=1"],
            "max_length must be None or an int of at least 16, got 1",
        ),
        (["--depth", "0"], "--depth"),
        (["-k", "0"], "-k"),
    ],
)
def test_options_that_cannot_work_are_usage_errors(
    evaluate, folder: Path, engines: FakeEngines, options: list[str], expected: str
) -> None:
    result = evaluate(folder, *options)
    assert (result.exit_code, result.stdout, engines) == (2, "", [])
    assert expected in result.stderr


def test_lists_take_no_run_file(evaluate, lists: Path, engines: FakeEngines) -> None:
    result = evaluate(lists, "--first-stage", "a.run")
    assert (result.exit_code, engines) == (2, [])
    assert result.stderr == "error: candidate lists take no run file, got 'a.run'\n"


def test_mistakes_in_files_come_before_a_model_is_loaded(
    evaluate, folder: Path, engines: FakeEngines
) -> None:
    (folder / "queries.jsonl").write_text("{")
    result = evaluate(folder)
    assert (result.exit_code, result.stdout, engines) == (1, "", [])
    assert "queries.jsonl:1: not JSON" in result.stderr


@pytest.mark.parametrize("module", ["bm25s", "Stemmer", "ir_measures", "scipy"])
def test_a_missing_extra_is_named_first(
    evaluate, folder: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = evaluate(folder.parent / "nothing")
    assert result.exit_code == 1
    assert 'pip install "bge-rerank-integrations[eval]"' in result.stderr


def test_settings_in_one_argument() -> None:
    assert model_settings("a/b") == ("a/b", {})
    assert model_settings("a,compress_layers=8,compress_layers=16,compress_ratio=2") == (
        "a",
        {"compress_layers": (8, 16), "compress_ratio": 2},
    )
    assert model_settings("a,instruction=Is it so? 1=1,long_documents=window") == (
        "a",
        {"instruction": "Is it so? 1=1", "long_documents": "window"},
    )
    with pytest.raises(
        ConfigurationError, match=r"max_length must be None or an int .* got '64,128'"
    ):
        model_settings("a,max_length=64,max_length=128")
    with pytest.raises(ConfigurationError, match="query_max_length must be less than max_length"):
        model_settings("a,max_length=64,query_max_length=64")
    with pytest.raises(ConfigurationError, match="model must be a non-empty string"):
        model_settings("")
