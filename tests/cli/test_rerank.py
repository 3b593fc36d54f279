"""``bge-rerank rerank``."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_reranker import FakeEngines
from typer.testing import CliRunner, Result

from bge_rerank_integrations import EngineConfig, InputError, RerankEngine
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.settings import CallOptions

PASSAGES = "Bananas are yellow.\n\nBerlin is in Germany.\nThe capital of Germany [is] Berlin.\n"
QUERY = "the capital of Germany"


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
    return FakeEngines.installed(monkeypatch)


@pytest.fixture
def rerank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in a folder with ``a.txt``."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    Path("a.txt").write_text(PASSAGES, encoding="utf-8")
    return lambda *arguments, **given: CliRunner().invoke(app, ["rerank", *arguments], **given)


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    read: dict[str, Any] = json.loads(result.stdout)
    return read


def test_piped_output_is_one_line_a_passage(engines: FakeEngines, rerank) -> None:
    result = rerank(QUERY, "a.txt")
    assert result.stdout.splitlines() == [
        "0.8808\ta.txt:4\tThe capital of Germany [is] Berlin.",
        "0.2689\ta.txt:3\tBerlin is in Germany.",
        "0.1192\ta.txt:1\tBananas are yellow.",
    ]
    assert result.stderr == ""


def test_long_passages_are_written_whole(engines: FakeEngines, rerank) -> None:
    Path("b.jsonl").write_text(json.dumps({"title": "A", "text": "x" * 500 + "\n\ty"}))
    assert rerank("q", "b.jsonl").stdout.endswith(f"\tb.jsonl:1\tA {'x' * 500} y\n")


def test_a_terminal_gets_a_table(
    engines: FakeEngines, rerank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = rerank(QUERY, "a.txt").stdout
    assert "\x1b[" in shown
    assert "[is] Berlin." in shown


SENTENCES = "Bananas are yellow. The capital of Germany\tis [b]Berlin[/b]. Berlin is large."


def test_a_terminal_shows_which_sentences_matter(
    engines: FakeEngines, rerank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    line = json.dumps({"title": "A  city", "text": SENTENCES})
    Path("b.jsonl").write_text(f"{line}\n{json.dumps({'text': '德国首都柏林。柏林很大。'})}")

    shown = rerank(QUERY, "b.jsonl", "--highlight").stdout

    dim, weak, strong = "\x1b[2m", "\x1b[32m", "\x1b[1;32m"
    assert (
        f"A city {weak}Bananas are yellow. \x1b[0m"
        f"{strong}The capital of Germany is [b]Berlin[/b]. \x1b[0m{weak}Berlin is large.\x1b[0m"
    ) in shown
    assert f"{dim}德国首都柏林。\x1b[0m{dim}柏林很大。\x1b[0m" in shown


def test_json_has_the_sentences_of_the_kept_texts(engines: FakeEngines, rerank) -> None:
    Path("b.jsonl").write_text(
        "\n".join(json.dumps({"title": "germany", "text": text}) for text in ("No.", SENTENCES))
    )

    [result] = document(rerank(QUERY, "b.jsonl", "--highlight", "--json", "--top-n", "1"))[
        "results"
    ]

    spans = result["spans"]
    assert "".join(SENTENCES[span["start"] : span["end"]] for span in spans) == SENTENCES
    assert [round(span["score"], 2) for span in spans] == [0.32, 0.88, 0.32]
    assert engines.reranker.scored[0][0] == "Bananas are yellow."
    assert len(engines.reranker.scored) == 1


def test_a_pipe_pays_for_no_sentences(engines: FakeEngines, rerank) -> None:
    assert rerank(QUERY, "a.txt", "--highlight").stdout == rerank(QUERY, "a.txt").stdout
    assert engines.reranker.scored == []


def test_json_is_one_document(engines: FakeEngines, rerank) -> None:
    assert document(rerank(QUERY, "a.txt", "--json", "--top-n", "1")) == {
        "query": QUERY,
        "model": "fake",
        "results": [
            {
                "index": 2,
                "score": pytest.approx(0.8808, abs=1e-4),
                "text": "The capital of Germany [is] Berlin.",
                "file": "a.txt",
                "line": 4,
            }
        ],
        "total_tokens": 3,
    }


def test_json_shows_the_ids_and_titles_that_lines_have(engines: FakeEngines, rerank) -> None:
    lines = [{"_id": "x", "title": "Capital", "text": "Ωμέγα"}, {"id": 0, "text": "two"}]
    given = "\n".join(map(json.dumps, lines))
    result = rerank("capital", "-", "--jsonl", "--json", input=given)
    first, second = document(result)["results"]
    assert (first["id"], first["title"], first["text"]) == ("x", "Capital", "Ωμέγα")
    assert (second["id"], "title" in second) == (0, False)
    assert "Ωμέγα" in result.stdout
    assert engines.reranker.calls[0].documents == ("Capital Ωμέγα", "two")


def test_the_settings_reach_the_engine(engines: FakeEngines, rerank) -> None:
    options = ["--model", "m/n", "--max-length", "64", "--device", "cuda:1", "--dtype", "float16"]
    options += ["--cutoff-layers", "16,8", "--instruction", "Is it so?", "--local-files-only=true"]
    rerank("q", "a.txt", *options, "--raw", "--top-n", "2", "--score-threshold", "0.5")
    assert engines.asked == (
        EngineConfig(
            "m/n",
            device="cuda:1",
            dtype="float16",
            cutoff_layers=(8, 16),
            local_files_only=True,
        ),
        CallOptions(max_length=64, instruction="Is it so?", normalize=False),
    )
    call = engines.reranker.calls[0]
    assert (call.query, call.top_n, call.score_threshold) == ("q", 2, 0.5)


def test_the_built_in_model_is_the_default(engines: FakeEngines, rerank) -> None:
    rerank("q", "a.txt")
    assert engines.asked == (EngineConfig("tiny"), CallOptions())


TEXT = "A ship floats.\nIt displaces water.\n  \n\nBread is\n  baked.\n"


@pytest.mark.parametrize(
    ("split", "lines"),
    [
        (
            "line",
            [(1, "A ship floats."), (2, "It displaces water."), (5, "Bread is"), (6, "baked.")],
        ),
        ("paragraph", [(1, "A ship floats.\nIt displaces water."), (5, "Bread is\n  baked.")]),
        ("file", [(1, TEXT.strip())]),
    ],
)
def test_a_passage_is_a_line_a_paragraph_or_a_file(
    engines: FakeEngines, rerank, split: str, lines: list[tuple[int, str]]
) -> None:
    result = rerank("q", "-", "--split", split, "--json", input=TEXT)
    results = sorted(document(result)["results"], key=lambda each: each["index"])
    assert [(each["line"], each["text"]) for each in results] == lines
    assert rerank("q", "-", "--split", split, input="\n \n").output == ""


@pytest.mark.parametrize("query", ["", "  "])
def test_an_empty_query_is_refused(engines: FakeEngines, rerank, query: str) -> None:
    result = rerank(query, "a.txt")
    assert result.exit_code == 2
    assert "QUERY must not be empty" in result.stderr
    assert engines.asked is None


def test_without_a_file_standard_input_is_named(engines: FakeEngines, rerank) -> None:
    message = " ".join(rerank("q", input="a passage").stderr.replace("│", " ").split())
    assert "as FILE, - reads passages from standard input" in message


def test_a_language_that_the_model_does_not_read_is_told(engines: FakeEngines, rerank) -> None:
    given = "Ein Schiff schwimmt, weil es das Wasser verdrängt und nicht schwerer ist."
    assert rerank("why does a ship float?", "-", input=given).stderr == (
        "note: the documents are in German, it seems, and tiny reads English: the scores may mean "
        "little\n"
    )
    multilingual = ("--model", "BAAI/bge-reranker-v2-m3")
    assert rerank("why does a ship float?", "-", *multilingual, input=given).stderr == ""


def test_a_terminal_sees_progress() -> None:
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    import fcntl
    import termios

    shown, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    program = "from bge_rerank_integrations.cli import main; main()"
    command = [sys.executable, "-c", program, "rerank", "why does a ship float?", "-"]
    lines = "\n".join(f"Ship {number} floats." for number in range(40))
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    assert len(done.stdout.splitlines()) == 40
    seen = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while read := os.read(shown, 4096):
            seen += read
    os.close(shown)
    assert b"40/40" in seen


def test_no_passages_is_no_output(engines: FakeEngines, rerank) -> None:
    Path("empty.txt").write_text("\n\n")
    result = rerank("q", "empty.txt")
    assert (result.exit_code, result.output) == (0, "")


def test_files_are_read_before_the_model_is_loaded(engines: FakeEngines, rerank) -> None:
    result = rerank("q", "a.txt", "missing.txt")
    assert result.exit_code == 1
    assert result.stderr == "error: missing.txt: No such file or directory\n"
    assert engines.asked is None


@pytest.mark.parametrize(("index", "place"), [(None, "QUERY"), (1, "a.txt:3")])
def test_what_cannot_be_scored_is_named_by_its_place(
    engines: FakeEngines, rerank, index: int | None, place: str
) -> None:
    engines.reranker.error = InputError("not valid Unicode", index)
    result = rerank("q", "a.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {place}: not valid Unicode\n"


@pytest.mark.parametrize(
    "arguments", [["q"], ["q", "a.txt", "--top-n", "0"], ["q", "a.txt", "--max-length", "two"]]
)
def test_arguments_that_cannot_work_are_usage_errors(
    engines: FakeEngines, rerank, arguments: list[str]
) -> None:
    result = rerank(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert engines.asked is None


def test_scores_are_the_engine_s_own(rerank, xlmr: str, engine: RerankEngine) -> None:
    options = ["--model", xlmr, "--dtype", "float32", "--device", "cpu", "--raw", "--json"]
    answered = document(rerank(QUERY, "a.txt", *options))
    passages = [line for line in PASSAGES.splitlines() if line]
    ranking = engine.rerank(QUERY, passages)
    assert [(kept["index"], kept["score"]) for kept in answered["results"]] == [
        (kept.index, pytest.approx(kept.score, abs=1e-5)) for kept in ranking
    ]
    assert answered["model"] == xlmr
    assert answered["total_tokens"] == ranking.total_tokens


def test_truncated_texts_are_told_on_standard_error(rerank, xlmr: str) -> None:
    options = ["--model", xlmr, "--max-length", "16", "--query-max-length", "2"]
    result = rerank("q " * 9, "-", *options, input="word " * 99 + "\nshort\n" + "end " * 99)
    assert result.stderr == "truncated: 2 passages and the query\n"
    assert len(result.stdout.splitlines()) == 3
    assert rerank("q", "-", "--model", xlmr, input="short").stderr == ""
