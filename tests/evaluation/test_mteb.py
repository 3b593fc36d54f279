"""mteb's tasks on the engine; skipped where mteb is not installed."""

# ruff: noqa: E402  # nothing of mteb can be imported where it is missing

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bge_rerank_integrations import ConfigurationError, InputError, RerankEngine
from bge_rerank_integrations.cli.app import app

mteb = pytest.importorskip("mteb")

import datasets
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import CrossEncoderProtocol, CrossEncoderWrapper, ModelMeta

from bge_rerank_integrations.evaluation.mteb_tasks import (
    MTEBReranker,
    evaluate_task,
    first_stage,
    read_task,
)

DOCUMENTS = {
    "d0": ("Giant panda", "a bear of China that eats bamboo"),
    "d1": ("", "a red car"),
    "d2": ("Car", "a blue car, and a red one"),
    "d3": ("Bear", "brown bears eat fish"),
    "d4": ("", "bamboo is a grass"),
}
QUERIES = {"q0": "which bear eats bamboo?", "q1": "a red car"}
RELEVANT = {"q0": {"d0": 1, "d3": 1}, "q1": {"d1": 1}}


def described(kind: Any, name: str, **more: Any) -> Any:
    """What mteb asks a task to say of itself."""
    return TaskMetadata(
        name=name,
        type=kind,
        main_score="ndcg_at_10",
        description="Five documents of our own.",
        dataset={"path": "own/documents", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        **more,
    )


class _Own(AbsTaskRetrieval):
    candidates: ClassVar[dict[str, list[str]] | None] = None

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        rows = [{"id": k, "title": a, "text": b} for k, (a, b) in DOCUMENTS.items()]
        split = {
            "corpus": datasets.Dataset.from_list(rows),
            "queries": datasets.Dataset.from_list(
                [{"id": name, "text": text} for name, text in QUERIES.items()]
            ),
            "relevant_docs": RELEVANT,
            "top_ranked": self.candidates,
        }
        self.dataset = {"default": {"test": split}}  # type: ignore[dict-item]
        self.data_loaded = True


class OwnRetrieval(_Own):
    """Documents are searched first."""

    metadata = described("Retrieval", "OwnRetrieval")


class OwnReranking(_Own):
    """Every query has its candidates."""

    metadata = described("Reranking", "OwnReranking")
    candidates: ClassVar = {"q0": ["d4", "d3", "d0"], "q1": ["d2", "d1"]}


class OwnMissing(AbsTaskRetrieval):
    """No data, and no hub."""

    metadata = described("Retrieval", "OwnMissing")


class OwnPictures(_Own):
    """Not of texts."""

    metadata = described("Any2AnyRetrieval", "OwnPictures", modalities=["image", "text"])


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of our own, by name, and no hub."""
    registry = sys.modules["mteb.get_tasks"]._TASKS_REGISTRY  # type: ignore[attr-defined]
    for task in (OwnRetrieval, OwnReranking, OwnMissing, OwnPictures):
        monkeypatch.setitem(registry, task.__name__, task)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def batches(texts: list[str], size: int) -> Iterator[dict[str, list[str]]]:
    return ({"text": texts[at : at + size]} for at in range(0, len(texts), size))


def test_the_engine_satisfies_the_protocol_of_mteb(engine: RerankEngine) -> None:
    model = MTEBReranker(engine)
    assert isinstance(model, CrossEncoderProtocol)
    assert isinstance(model.mteb_model_meta, ModelMeta)


def test_predictions_are_logits_in_the_order_of_the_inputs(engine: RerankEngine) -> None:
    queries, documents = list("abcabca"), [f"document {number}" for number in range(7)]
    model = MTEBReranker(engine.with_options(normalize=True))
    answer = model.predict(batches(queries, 2), batches(documents, 3), show_progress_bar=False)
    expected = engine.score_pairs(zip(queries, documents, strict=True)).logits
    assert answer.dtype == np.float64
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="shorter"):
        model.predict(batches(queries, 2), batches(documents[:6], 3), show_progress_bar=False)
    with pytest.raises(InputError, match="pair 0"):
        model.predict([{"text": [None]}], [{"text": ["a"]}], show_progress_bar=False)


def test_results_of_other_settings_have_other_names(engine: RerankEngine, xlmr: str) -> None:
    names = {
        MTEBReranker(one).mteb_model_meta.model_name_with_experiment
        for one in (
            engine,
            engine.with_options(max_length=64),
            engine.with_options(instruction=None),
        )
    }
    assert len(names) == 2
    assert all(name.startswith(xlmr) and "float32" in name for name in names)


@pytest.mark.parametrize("name", ["OwnRetrieval", "OwnReranking"])
def test_every_measure_equals_that_of_sentence_transformers(
    engine: RerankEngine, xlmr: str, name: str
) -> None:
    task = read_task(name)
    before = first_stage(task, depth=3)
    assert (before is None) == (name == "OwnReranking")
    score = evaluate_task("tiny", engine, task)
    options: Any = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
    theirs = CrossEncoderWrapper(xlmr, device="cpu")
    expected = mteb.evaluate(theirs, task, **options).task_results[0]
    assert score.score == expected.get_score()
    (ours,), (peer,) = score.details["scores"]["test"], expected.scores["test"]
    assert ours.keys() == peer.keys()
    assert len(ours) > 50
    for measure, value in peer.items():
        wanted = None if value != value else value
        assert ours[measure] == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)


def test_the_first_stage_hands_on_its_best_documents_only(engine: RerankEngine) -> None:
    task = read_task("OwnRetrieval")
    before = first_stage(task, depth=2)
    assert before is not None
    assert (before.system, before.measure) == ("BM25", "ndcg_at_10")
    assert before.score > 0.7
    candidates = task.dataset["default"]["test"]["top_ranked"]
    assert {query: set(found) for query, found in candidates.items()} == {
        "q0": {"d0", "d3"},
        "q1": {"d1", "d2"},
    }
    pairs = engine.stats().pairs
    evaluate_task("tiny", engine, task)
    assert engine.stats().pairs - pairs == 4
    with pytest.raises(ConfigurationError, match="depth must be at least 1"):
        first_stage(task, depth=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OwnRetrieva", "Did you mean: 'OwnRetrieval'"),
        ("OwnMissing", "the data of OwnMissing .own/documents. is neither in the cache"),
        ("STS12", "must be retrieval or reranking of text, got STS12 .STS of text."),
        ("OwnPictures", "got OwnPictures .Any2AnyRetrieval of image, text."),
    ],
)
def test_a_task_that_cannot_run_says_why(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_task(name)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_the_command_line_measures_models_in_tasks(xlmr: str) -> None:
    model = f"{xlmr},device=cpu,dtype=float32"
    result = evaluate("--mteb", "OwnReranking", "--mteb", "OwnRetrieval", "--model", model)
    assert result.exit_code == 0, result.output
    header, *rows, _ = (line.split("\t") for line in result.stdout.splitlines())
    assert header == ["task", "system", "measure", "score", "seconds"]
    assert [row[:3] for row in rows] == [
        ["OwnReranking", model, "ndcg_at_10"],
        ["OwnRetrieval", "BM25", "ndcg_at_10"],
        ["OwnRetrieval", model, "ndcg_at_10"],
    ]


def test_the_command_line_writes_what_mteb_writes(xlmr: str) -> None:
    result = evaluate("--mteb", "OwnReranking", "--model", f"{xlmr},device=cpu", "--json")
    assert result.exit_code == 0, result.output
    (score,) = json.loads(result.stdout)
    assert score["task"] == "OwnReranking"
    assert score["details"]["scores"]["test"][0]["main_score"] == score["score"]
