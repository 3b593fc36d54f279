"""Score the batches of a Ray dataset, or the rows of a JSON Lines file."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from .checks import require
from .engine.engine import RerankEngine
from .errors import ConfigurationError, InputError
from .jsonl import Place, json_objects, parse_object
from .ranking import PairScorer
from .settings import EngineConfig

__all__ = ["RerankBatch", "score_file"]

# large enough for full batches, small enough to lose little work on a kill
CHUNK_ROWS = 1_024


class RerankBatch:
    """Scores batches of a ``ray.data.Dataset``, with one engine per actor.

    ::

        ray.data.read_parquet("pairs").map_batches(
            RerankBatch,
            fn_constructor_args=("BAAI/bge-reranker-v2-m3",),
            fn_constructor_kwargs={"max_length": 256},
            compute=ray.data.ActorPoolStrategy(size=8),
            num_gpus=1,
            batch_size=2_048,
        ).write_parquet("scored")

    Ray Data does not keep the order of rows: add an id column.

    :param model: a model's name, or a whole config.
    :param query: name of the query column.
    :param document: name of the document column.
    :param score: name of the new score column.
    :param on_error: "raise" ends the job at a row whose query or document is no text; "null" gives
        the row the score NaN, which Ray writes as null or NaN.
    :param settings: the engine's other settings, see :class:`RerankEngine`.
    :raises ModelLoadError: if the model cannot be loaded.
    :raises ConfigurationError: if a setting is invalid, or does not fit this machine or model.
    """

    def __init__(
        self,
        model: str | EngineConfig,
        query: str = "query",
        document: str = "document",
        score: str = "score",
        on_error: Literal["raise", "null"] = "raise",
        **settings: Any,
    ) -> None:
        require(on_error in ("raise", "null"), "on_error", "'raise' or 'null'", on_error)
        self._skips = on_error == "null"
        self._engine = RerankEngine.shared(model, **settings)
        self._columns = (query, document, score)

    def __call__(self, batch: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Add the scores to a batch of columns.

        :raises InputError: for a row that cannot be scored; the message names it.
        """
        query, document, score = self._columns
        pairs = list(zip(batch[query], batch[document], strict=True))
        scores = np.full(len(pairs), np.nan, dtype=np.float64)
        scored = [
            index
            for index, pair in enumerate(pairs)
            if not self._skips or all(isinstance(text, str) for text in pair)
        ]
        scores[scored] = self._engine.score_pairs([pairs[index] for index in scored])
        batch[score] = scores
        return batch


def score_file(
    scorer: PairScorer, source: Path, target: Path, *, show_progress: bool = False
) -> int:
    """Score the rows of a JSON Lines file; rows that an earlier call wrote are skipped.

    Rows are written in order and in chunks: a killed call can be repeated.

    :param source: JSON Lines in UTF-8 with a ``query`` and a ``document``; blank ones are skipped.
    :param target: where the same rows go, each with its ``score``.
    :param show_progress: show a progress bar on standard error.
    :returns: the number of rows that this call scored.
    :raises ConfigurationError: if ``target`` does not hold the beginning of ``source``.
    :raises InputError: for a row that cannot be read or scored; the message names it.
    """
    done = _written_rows(source, target)
    rows = (row for _, row in islice(json_objects(source), done, None))
    scored = 0
    with (
        tqdm(initial=done, unit="row", disable=not show_progress) as bar,
        target.open("ab") as output,
    ):
        while chunk := list(islice(rows, CHUNK_ROWS)):
            try:
                pairs: list[Any] = [(row.get("query"), row.get("document")) for row in chunk]
                scores = scorer.score_pairs(pairs)
            except InputError as error:
                number = done + scored + (error.index or 0)
                raise InputError(
                    f"row {number + 1} of {source}: 'query' and 'document' must be texts: {error}",
                    number,
                ) from error
            for row, value in zip(chunk, scores, strict=True):
                line = json.dumps({**row, "score": value}, ensure_ascii=False) + "\n"
                output.write(line.encode("utf-8", "surrogatepass"))
            output.flush()
            # a kill of the machine loses no chunk either
            os.fsync(output.fileno())
            scored += len(chunk)
            bar.update(len(chunk))
    return scored


def _written_rows(source: Path, target: Path) -> int:
    """Count the rows in the target, and cut off what a kill left of one more.

    :raises ConfigurationError: if these are not the first rows of the source.
    """
    for path in (source, target):
        if path.suffix != ".jsonl":
            raise ConfigurationError(
                f"expected a .jsonl file, got {path}; Parquet is read and written by Ray Data "
                "(RerankBatch) or the package datasets"
            )
    if not target.exists():
        return 0
    with target.open("r+b") as file:
        count, end, last = 0, 0, b""
        for line in file:
            if not line.endswith(b"\n"):
                break
            count, end, last = count + 1, end + len(line), line
        if count:
            written = parse_object(last.decode("utf-8", "surrogatepass"), Place(str(target), count))
            _, row = next(islice(json_objects(source), count - 1, None), (None, None))
            if row is None or written != {**row, "score": written.get("score")}:
                raise ConfigurationError(
                    f"{target} exists, and its row {count} is not row {count} of {source}: "
                    "remove it, or write elsewhere"
                )
        file.truncate(end)
    return count
