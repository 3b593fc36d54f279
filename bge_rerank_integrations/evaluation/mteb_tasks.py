"""mteb's retrieval and reranking tasks, with an engine as the reranker.

::

    task = read_task("SciFact")
    before = first_stage(task, depth=100)
    after = evaluate_task("tiny", RerankEngine.shared("tiny"), task)

mteb's two stages: BM25 retrieves candidates, and a cross-encoder reranks them.
See https://embeddings-benchmark.github.io/mteb/get_started/advanced_usage/two_stage_reranking/.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bge_rerank_integrations.engine.engine import RerankEngine
from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.evaluation.runs import DEPTH, check_depth

_BM25 = "mteb/baseline-bm25s"
# what mteb stores results under; they do not change them
_NAMES = ("model", "revision")


@dataclass(frozen=True)
class TaskScore:
    """What a system reaches in a task.

    :param system: its name in reports.
    :param task: the task's name.
    :param measure: the task's main score, e.g. ``ndcg_at_10``.
    :param score: its value: the mean of the task's splits and languages.
    :param seconds: of searching or reranking, and of the measures.
    :param details: the result as mteb writes it, with None for NaN.
    """

    system: str
    task: str
    measure: str
    score: float
    seconds: float
    details: Mapping[str, Any]


class MTEBReranker:
    """An engine as mteb's ``CrossEncoderProtocol``: ``mteb.evaluate(MTEBReranker(engine), task)``.

    :param engine: what scores; its errors are raised.
    """

    def __init__(self, engine: RerankEngine) -> None:
        self._engine = engine

    @property
    def mteb_model_meta(self) -> Any:
        """Name and settings; mteb stores results under them.

        :raises MissingExtraError: if mteb is not installed.
        """
        engine = self._engine
        changed = {
            each.name: str(getattr(group, each.name))
            for group in (engine.config, engine.options)
            for each in fields(group)
            if each.name not in _NAMES and getattr(group, each.name) != each.default
        }
        return _mteb().models.ModelMeta.create_empty(
            {
                "name": engine.model if "/" in engine.model else f"bge-rerank/{engine.model}",
                "revision": engine.config.revision,
                "model_type": ["cross-encoder"],
                "experiment_kwargs": changed | {"dtype": engine.dtype},
            }
        )

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        show_progress_bar: bool = True,
        **_: object,
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Score queries and documents of the same positions.

        :param inputs1: batches with the queries as ``text``; read as they are scored.
        :param inputs2: batches with the documents as ``text``.
        :returns: logits, ``(pairs,)`` float64: mteb orders by them, and different logits may have
            equal scores.
        :raises ValueError: if there are more of one than of the other.
        """
        pairs = zip(_texts(inputs1), _texts(inputs2), strict=True)
        scores = self._engine.score_pairs(pairs, show_progress=show_progress_bar, normalize=False)
        return np.array(scores, dtype=np.float64)


def read_task(name: str) -> Any:
    """A retrieval or reranking task of texts, with its data.

    :param name: mteb's name of it, e.g. ``SciFact``.
    :returns: mteb's ``AbsTaskRetrieval``.
    :raises MissingExtraError: if mteb is not installed.
    :raises ConfigurationError: if there is no such task, it is of another kind, or its data is
        neither in the cache of datasets nor to be had from the hub.
    """
    mteb = _mteb()
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise ConfigurationError(f"mteb: {error.args[0]}") from error
    if not isinstance(task, AbsTaskRetrieval) or task.metadata.modalities != ["text"]:
        kind, of = task.metadata.type, ", ".join(task.metadata.modalities)
        raise ConfigurationError(
            f"mteb task must be retrieval or reranking of text, got {name} ({kind} of {of})"
        )
    try:
        task.load_data()
    except (OSError, ValueError) as error:
        # of huggingface_hub and of datasets; ValueError: a part of the data is not in the cache
        raise ConfigurationError(
            f"the data of {name} ({task.metadata.dataset['path']}) is neither in the cache of "
            f"datasets nor to be had from the hub: {error}"
        ) from error
    # tasks of mteb's first version keep their candidates elsewhere
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    return task


def first_stage(task: Any, depth: int = DEPTH, *, show_progress: bool = False) -> TaskScore | None:
    """Search with mteb's BM25, and leave the best documents in the task for rerankers.

    :param task: of :func:`read_task`.
    :param depth: maximum number of documents per query.
    :returns: what BM25 reaches; None for a task that comes with candidates, which stay.
    :raises ConfigurationError: for a depth below 1.
    """
    check_depth(depth)
    splits = [split for subset in task.dataset.values() for split in subset.values()]
    if all(split["top_ranked"] for split in splits):
        return None
    with TemporaryDirectory() as folder:
        model = _mteb().get_model(_BM25)
        score = _evaluate("BM25", model, task, show_progress, prediction_folder=folder)
        task.convert_to_reranking(folder, top_k=depth)
    return score


def evaluate_task(
    name: str, engine: RerankEngine, task: Any, *, show_progress: bool = False
) -> TaskScore:
    """Rerank the task's candidates.

    :param name: of the engine, in reports.
    :param task: of :func:`read_task`, after :func:`first_stage`.
    :raises RerankError: of the engine.
    """
    return _evaluate(name, MTEBReranker(engine), task, show_progress)


def _evaluate(name: str, model: Any, task: Any, show_progress: bool, **options: Any) -> TaskScore:
    started = time.perf_counter()
    answer = _mteb().evaluate(
        model,
        task,
        # results of another day may be of another version of this package
        cache=None,
        co2_tracker=False,
        show_progress_bar=show_progress,
        **options,
    )
    seconds = time.perf_counter() - started
    result = answer.task_results[0]
    measure, value = task.metadata.main_score, float(result.get_score())
    # through JSON: what is undefined for few queries is NaN, which JSON cannot say
    details = json.loads(result.model_dump_json())
    return TaskScore(name, task.metadata.name, measure, value, seconds, details)


def _texts(batches: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (text for batch in batches for text in batch["text"])


def _mteb() -> Any:
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise MissingExtraError("mteb") from error
    return mteb
