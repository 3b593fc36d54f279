"""Rows that are scored in bulk, killed and resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Process, run

from bge_rerank_integrations import (
    ConfigurationError,
    EngineConfig,
    InputError,
    RerankEngine,
    bulk,
)
from bge_rerank_integrations.bulk import RerankBatch, score_file

ROWS = [{"id": n, "query": f"q{n % 7}", "document": f"döcument {n}"} for n in range(100)]


class Scorer:
    """Scores a pair with the number in its document.

    :param stop_after: raises KeyboardInterrupt instead of scoring more pairs.
    """

    def __init__(self, stop_after: int = 10**9) -> None:
        self.seen: list[Sequence[str]] = []
        self._stop_after = stop_after

    def score_pairs(self, pairs: Iterable[Sequence[str]]) -> list[float]:
        given = list(pairs)
        if len(self.seen) + len(given) > self._stop_after:
            raise KeyboardInterrupt
        self.seen += given
        return [float(document.split()[-1]) for _, document in given]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK_ROWS", 8)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A file of rows, and where they go."""
    source = tmp_path / "in.jsonl"
    write(source, ROWS)
    return source, tmp_path / "out.jsonl"


def test_rows_come_out_with_their_scores(files: tuple[Path, Path]) -> None:
    assert score_file(Scorer(), *files) == 100
    assert read(files[1]) == [{**row, "score": float(row["id"])} for row in ROWS]  # type: ignore[arg-type]


def test_a_second_call_scores_nothing_twice(files: tuple[Path, Path]) -> None:
    with pytest.raises(KeyboardInterrupt):
        score_file(Scorer(stop_after=40), *files)
    assert len(read(files[1])) == 40
    rest = Scorer()
    assert score_file(rest, *files) == 60
    assert [document for _, document in rest.seen] == [row["document"] for row in ROWS[40:]]
    assert [row["score"] for row in read(files[1])] == list(map(float, range(100)))
    assert score_file(Scorer(stop_after=0), *files) == 0


def test_a_line_that_a_kill_cut_is_written_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, ROWS)
    score_file(Scorer(), source, target)
    whole = target.read_bytes()
    for size in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        target.write_bytes(whole[:size])
        score_file(Scorer(), source, target)
        assert target.read_bytes() == whole


def test_a_target_with_other_rows_is_left_alone(files: tuple[Path, Path]) -> None:
    score_file(Scorer(), *files)
    before = read(files[1])
    write(files[0], ROWS[50:])
    with pytest.raises(ConfigurationError, match="is not row 100"):
        score_file(Scorer(), *files)
    assert read(files[1]) == before


def test_a_target_that_is_no_result_is_left_alone(files: tuple[Path, Path]) -> None:
    for text, error in (("[1]\n", InputError), ('{"a": 1}\n{"b"', ConfigurationError)):
        files[1].write_text(text)
        with pytest.raises(error, match=r"out\.jsonl"):
            score_file(Scorer(), *files)
        assert files[1].read_text() == text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"query": "a", "document": "b 1"}\n{"query"\n', "in.jsonl:2: not JSON"),
        ('{"query": "a", "document": "b 1"}\n\n3\n', "in.jsonl:3: expected a JSON object, got int"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "in.jsonl").write_text(lines)
    with pytest.raises(InputError, match=message):
        score_file(Scorer(), tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_a_row_without_texts_is_named(files: tuple[Path, Path], engine: RerankEngine) -> None:
    write(files[0], [*ROWS[:9], {"id": 1, "query": "q", "document": None}])
    with pytest.raises(InputError, match=r"row 10 of .*must be texts") as caught:
        score_file(engine, *files)
    assert caught.value.index == 9
    assert len(read(files[1])) == 8


def test_a_row_without_texts_is_named_after_a_resume(
    files: tuple[Path, Path], engine: RerankEngine
) -> None:
    write(files[0], [*ROWS[:18], {"id": 1, "query": "q", "document": None}])
    with pytest.raises(KeyboardInterrupt):
        score_file(Scorer(stop_after=8), *files)
    # the first call scores one chunk of eight more, the second none
    for _ in range(2):
        with pytest.raises(InputError, match=r"row 19 of .*must be texts") as caught:
            score_file(engine, *files)
        assert caught.value.index == 18
        assert len(read(files[1])) == 16


def test_another_format_is_refused(tmp_path: Path) -> None:
    for names in (("in.parquet", "out.jsonl"), ("in.jsonl", "out.csv")):
        source, target = (tmp_path / name for name in names)
        with pytest.raises(ConfigurationError, match=r"expected a \.jsonl file, got .*RerankBatch"):
            score_file(Scorer(), source, target)
        assert not target.exists()


def test_batches_of_a_dataset_are_scored(xlmr: str, engine: RerankEngine) -> None:
    settings: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    documents = ["a", "panda " * 40]
    options: dict[str, Any] = {"normalize": False, "max_length": 32}
    for model, given in ((xlmr, settings | options), (EngineConfig(xlmr, **settings), options)):
        batch = {
            "query": np.array(["q", "q"], dtype=object),
            "passage": np.array(documents, dtype=object),
        }
        scored = RerankBatch(model, document="passage", score="s", **given)(batch)
        expected = engine.score("q", documents, **options)
        assert scored["s"].tolist() == pytest.approx(expected, abs=1e-6)
    assert engine.score("q", documents)[1] != pytest.approx(expected[1], abs=1e-6)


def test_the_command_survives_a_kill(tmp_path: Path, xlmr: str) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{**row, "document": f"{row['document']} {'panda ' * 60}"} for row in ROWS * 40]
    write(source, rows)
    command = [
        "from bge_rerank_integrations.cli import main; main()",
        "rerank", "--bulk", str(source), "-o", str(target), "--model", xlmr, "--dtype", "float32",
    ]  # fmt: skip
    process = Process(*command)
    deadline = time.monotonic() + 60
    while not (target.exists() and target.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.end()
    written = target.read_bytes().count(b"\n")
    assert 0 < written < len(rows)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert f"{len(rows) - written} rows scored" in done.stderr
    scored = read(target)
    assert [{key: row[key] for key in rows[0]} for row in scored] == rows
    assert all(0 < row["score"] < 1 for row in scored)
