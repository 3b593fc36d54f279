"""Score the rows of a file, or the batches of a Ray dataset."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from bge_rerank_integrations.bulk.files import JsonLines, Parquet, RowFiles
from bge_rerank_integrations.engine.engine import RerankEngine
from bge_rerank_integrations.errors import ConfigurationError, InputError
from bge_rerank_integrations.settings import EngineConfig

# large enough for full batches, small enough that a kill costs little
CHUNK_ROWS = 1_024


class PairScorer(Protocol):
    """The part of :class:`RerankEngine` that scores pairs."""

    def score_pairs(self, pairs: Sequence[Sequence[str]]) -> list[float]:
        """Score (query, document) pairs."""
        ...


class RerankBatch:
    """Scores batches of a ``ray.data.Dataset``, one engine in each actor::

        dataset.map_batches(
            RerankBatch,
            fn_constructor_args=(EngineConfig("BAAI/bge-reranker-v2-m3"),),
            compute=ray.data.ActorPoolStrategy(size=8),
            num_gpus=1,
            batch_size=2_048,
        )

    Ray Data does not keep the order of rows: give them ids.

    :param config: the engine's settings.
    :param query: name of the column with queries.
    :param document: name of the column with documents.
    :param score: name of the column that is added.
    :raises ModelLoadError: if the model cannot be loaded.
    """

    def __init__(
        self,
        config: EngineConfig,
        query: str = "query",
        document: str = "document",
        score: str = "score",
    ) -> None:
        self._engine = RerankEngine.shared(config)
        self._columns = (query, document, score)

    def __call__(self, batch: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Add the scores to a batch of columns.

        :raises InputError: naming a row of the batch whose texts cannot be scored.
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
    """Score the rows of a file; what an earlier call has written already is not scored again.

    Rows are written in their order, some at a time, so the call may be killed at any moment and
    made again.

    :param source: JSON Lines (``.jsonl``) or Parquet (``.parquet``).
    :param target: a JSON Lines file; for Parquet, a folder of ``part-….parquet`` files.
    :param query: name of the column with queries.
    :param document: name of the column with documents.
    :param score: name of the column that is added.
    :param show_progress: show a progress bar on standard error.
    :returns: the number of rows that this call scored.
    :raises ConfigurationError: if ``target`` does not hold the beginning of ``source``.
    :raises InputError: naming the row whose texts cannot be scored, or that cannot be read.
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
