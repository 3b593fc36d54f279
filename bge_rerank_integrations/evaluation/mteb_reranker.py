"""An engine as a model of mteb: ``mteb.evaluate(MTEBReranker(engine), task)``.

A retrieval task needs candidates first, such as those of mteb's BM25:
https://embeddings-benchmark.github.io/mteb/get_started/advanced_usage/two_stage_reranking/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..engine.engine import RerankEngine
from ..errors import MissingExtraError

# mteb stores results under them; they do not change a result
_NAMES = ("model", "revision")


class MTEBReranker:
    """An engine as mteb's ``CrossEncoderProtocol``.

    :param engine: scores the pairs; its errors are raised.
    """

    def __init__(self, engine: RerankEngine) -> None:
        self._engine = engine

    @property
    def mteb_model_meta(self) -> Any:
        """Name and settings; mteb stores results under them.

        :raises MissingExtraError: if mteb is not installed.
        """
        try:
            from mteb.models import ModelMeta
        except ModuleNotFoundError as error:
            raise MissingExtraError("mteb") from error
        engine = self._engine
        changed = {
            each.name: str(getattr(group, each.name))
            for group in (engine.config, engine.options)
            for each in fields(group)
            if each.name not in _NAMES and getattr(group, each.name) != each.default
        }
        return ModelMeta.create_empty(
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
        queries, documents = (
            (text for batch in batches for text in batch["text"]) for batches in (inputs1, inputs2)
        )
        pairs = zip(queries, documents, strict=True)
        scores = self._engine.score_pairs(pairs, show_progress=show_progress_bar, normalize=False)
        return np.array(scores, dtype=np.float64)
