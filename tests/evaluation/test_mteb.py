"""mteb's tasks on the engine; skipped where mteb is not installed."""

# ruff: noqa: E402  # nothing of mteb can be imported where it is missing

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bge_rerank_integrations import InputError, RerankEngine

mteb = pytest.importorskip("mteb")

import datasets
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import CrossEncoderProtocol, CrossEncoderWrapper, ModelMeta

from bge_rerank_integrations.evaluation.mteb_reranker import MTEBReranker

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


def measured(model: Any, task: Any, **more: Any) -> dict[str, Any]:
    """Every measure of mteb."""
    options = {"cache": None, "co2_tracker": False, "show_progress_bar": False, **more}
    ((measures,),) = mteb.evaluate(model, task, **options).task_results[0].scores.values()
    return dict(measures)


@pytest.mark.parametrize("kind", [OwnRetrieval, OwnReranking])
def test_every_measure_equals_that_of_sentence_transformers(
    engine: RerankEngine, xlmr: str, kind: Any, tmp_path: Path
) -> None:
    task = kind()
    if kind is OwnRetrieval:
        measured(mteb.get_model("mteb/baseline-bm25s"), task, prediction_folder=tmp_path)
        task.convert_to_reranking(str(tmp_path), top_k=3)
    pairs = engine.stats().pairs
    ours = measured(MTEBReranker(engine), task)
    assert engine.stats().pairs > pairs
    theirs = measured(CrossEncoderWrapper(xlmr, device="cpu"), task)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 50
    for measure, value in theirs.items():
        is_number = isinstance(value, float)
        assert ours[measure] == (pytest.approx(value, nan_ok=True) if is_number else value)
