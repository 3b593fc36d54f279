"""Score the rows of a file, or the batches of a Ray dataset."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from bge_rerank_integrations.bulk.files import JsonLines, Parquet, RowFiles
from bge_rerank_integrations.engine.engine import RerankEngine
from bge_rerank_integrations.errors import ConfigurationError, InputError
from bge_rerank_integrations.ranking import PairScorer
from bge_rerank_integrations.settings import EngineConfig

# large enough for full batches, small enough to lose little work on a kill
CHUNK_ROWS = 1_024


class RerankBatch:
    """Scores batches of a ``ray.data.Dataset``, with one engine per actor.

    ::

        dataset.map_batches(
            RerankBatch,
            fn_constructor_args=("BAAI/bge-reranker-v2-m3",),
            fn_constructor_kwargs={"max_length": 256},
            compute=ray.data.ActorPoolStrategy(size=8),
            num_gpus=1,
            batch_size=2_048,
        )

    Ray Data does not keep the order of rows: add an id column.

    :param model: a model's name, or a whole config.
    :param query: name of the query column.
    :param document: name of the document column.
    :param score: name of the new score column.
    :param settings: the engine's other settings, see :class:`RerankEngine`.
    :raises ModelLoadError: if the model cannot be loaded.
    :raises ConfigurationError: if a setting cannot work, or does not fit this machine or model.
    """

    def __init__(
        self,
        model: str | EngineConfig,
        query: str = "query",
        document: str = "document",
        score: str = "score",
        **settings: Any,
    ) -> None:
        self._engine = RerankEngine.shared(model, **settings)
        self._columns = (query, document, score)

    def __call__(self, batch: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Add the scores to a batch of columns.

        :raises InputError: for a row that cannot be scored; the message names it.
        """
        query, document, score = self._columns
        pairs = list(zip(batch[query], batch[document], strict=True))
        batch[score] = np.array(self._engine.score_pairs(pairs), dtype=np.float64)
        return batch


def score_file(
    scorer: PairScorer,
    source: Path,
    target: Path,
    *,
    query: str = "query",
    document: str = "document",
    score: str = "score",
    show_progress: bool = False,
) -> int:
    """Score the rows of a file; rows that an earlier call has written are skipped.

    Rows are written in order and in chunks: a killed call can be repeated.

    :param source: JSON Lines (``.jsonl``) or Parquet (``.parquet``).
    :param target: a JSON Lines file, or a folder for ``part-….parquet`` files.
    :param query: name of the query column.
    :param document: name of the document column.
    :param score: name of the new score column.
    :param show_progress: show a progress bar on standard error.
    :returns: the number of rows that this call scored.
    :raises ConfigurationError: if ``target`` does not hold the beginning of ``source``.
    :raises InputError: for a row that cannot be read or scored; the message names it.
    """
    files = _files(source, target)
    done = files.resume(score)
    scored = 0
    with tqdm(total=files.total, initial=done, unit="row", disable=not show_progress) as bar:
        for chunk in files.read(done, CHUNK_ROWS):
            pairs = list(
                zip(files.column(chunk, query), files.column(chunk, document), strict=True)
            )
            try:
                scores = scorer.score_pairs(pairs)
            except InputError as error:
                row = done + scored + (error.index or 0)
                raise InputError(
                    f"row {row + 1} of {source}: {query!r} and {document!r} must be texts: {error}",
                    row,
                ) from error
            files.write(chunk, score, scores)
            scored += len(pairs)
            bar.update(len(pairs))
    return scored


def _files(source: Path, target: Path) -> RowFiles:
    if source.suffix == ".parquet":
        return Parquet(source, target)
    if source.suffix == ".jsonl":
        return JsonLines(source, target)
    raise ConfigurationError(f"a .jsonl or .parquet file was expected, got {source}")
