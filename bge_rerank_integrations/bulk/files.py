"""Files of rows; writing resumes after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.jsonl import parse_object, read_lines


class RowFiles(Protocol):
    """A source of rows, and the target for the rows with one more column."""

    @property
    def total(self) -> int | None:
        """Number of rows in the source; None if unknown."""
        ...

    def resume(self, added: str) -> int:
        """Count the rows in the target, and prepare the target for the next row.

        :param added: the additional column of the target.
        :raises ConfigurationError: if the target does not hold the first rows of the source.
        """
        ...

    def read(self, skip: int, count: int) -> Iterator[Any]:
        """Read the rows after the first ``skip``, in chunks of at most ``count``.

        :returns: chunks for :meth:`column` and :meth:`write`.
        """
        ...

    def column(self, chunk: Any, name: str) -> list[Any]:
        """One column of a chunk; None for a row without it."""
        ...

    def write(self, chunk: Any, name: str, values: Sequence[float]) -> None:
        """Append a chunk with one more column.

        After this returns, the rows survive a kill.
        """
        ...


class JsonLines:
    """JSON Lines in UTF-8; blank lines are skipped."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self._target = target

    @property
    def total(self) -> int | None:
        return None

    def resume(self, added: str) -> int:
        if not self._target.exists():
            return 0
        with self._target.open("r+b") as target:
            count, end, last = 0, 0, b""
            for line in target:
                if not line.endswith(b"\n"):
                    break
                count, end, last = count + 1, end + len(line), line
            # a kill may have cut the last line
            target.truncate(end)
        if count:
            self._check(count, json.loads(last), added)
        return count

    def read(self, skip: int, count: int) -> Iterator[list[dict[str, Any]]]:
        rows = self._rows(skip)
        while chunk := list(islice(rows, count)):
            yield chunk

    def column(self, chunk: list[dict[str, Any]], name: str) -> list[Any]:
        return [row.get(name) for row in chunk]

    def write(self, chunk: list[dict[str, Any]], name: str, values: Sequence[float]) -> None:
        rows = ({**row, name: value} for row, value in zip(chunk, values, strict=True))
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self._target.open("ab") as target:
            target.write(lines.encode("utf-8", "surrogatepass"))
            target.flush()
            os.fsync(target.fileno())

    def _rows(self, skip: int) -> Iterator[dict[str, Any]]:
        for place, text in islice(read_lines(self._source), skip, None):
            yield parse_object(text, place)

    def _check(self, count: int, written: Any, added: str) -> None:
        row = next(self._rows(count - 1), None)
        if row is None or not _is_scored(row, written, added):
            raise _other_rows(self._target, self._source, count)


class Parquet:
    """A Parquet file, and a folder of parts: Parquet files cannot grow."""

    def __init__(self, source: Path, target: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise MissingExtraError("parquet") from error
        self._arrow = pyarrow
        self._source = pyarrow.parquet.ParquetFile(source)
        self._path = source
        self._target = target
        self._parts = 0

    @property
    def total(self) -> int | None:
        return int(self._source.metadata.num_rows)

    def resume(self, added: str) -> int:
        self._target.mkdir(parents=True, exist_ok=True)
        parts = sorted(self._target.glob("part-*.parquet"))
        self._parts = len(parts)
        count = sum(int(self._arrow.parquet.read_metadata(part).num_rows) for part in parts)
        if count:
            written = self._arrow.parquet.read_table(parts[-1]).to_pylist()[-1]
            chunk = next(self.read(count - 1, 1), None)
            if chunk is None or not _is_scored(chunk.to_pylist()[0], written, added):
                raise _other_rows(self._target, self._path, count)
        return count

    def read(self, skip: int, count: int) -> Iterator[Any]:
        for batch in self._source.iter_batches(count):
            if skip < batch.num_rows:
                yield self._arrow.Table.from_batches([batch.slice(skip)])
            skip = max(skip - batch.num_rows, 0)

    def column(self, chunk: Any, name: str) -> list[Any]:
        if name not in chunk.column_names:
            return [None] * chunk.num_rows
        values: list[Any] = chunk.column(name).to_pylist()
        return values

    def write(self, chunk: Any, name: str, values: Sequence[float]) -> None:
        part = self._target / f"part-{self._parts:06}.parquet"
        unfinished = part.with_suffix(".unfinished")
        scored = chunk.append_column(name, self._arrow.array(values, self._arrow.float64()))
        self._arrow.parquet.write_table(scored, unfinished)
        # atomic: the part exists completely or not at all
        unfinished.replace(part)
        self._parts += 1


def _is_scored(row: Mapping[str, Any], written: Any, added: str) -> bool:
    return isinstance(written, dict) and written == {**row, added: written.get(added)}


def _other_rows(target: Path, source: Path, count: int) -> ConfigurationError:
    return ConfigurationError(
        f"{target} exists, and its row {count} is not row {count} of {source}: "
        "remove it, or write elsewhere"
    )
