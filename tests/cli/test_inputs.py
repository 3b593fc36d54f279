"""Passages from files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from bge_rerank_integrations.cli.rerank import FilePassage, read_passages
from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.jsonl import Place


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Write a file into the working folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name, content: (tmp_path / name).write_bytes(content)


def test_text_has_a_passage_on_each_line_that_is_not_blank(write) -> None:
    write("a.txt", "one\n\n  zwei ü \r\n\t\nthree".encode())
    assert read_passages(["a.txt"], jsonl=False) == [
        FilePassage("one", Place("a.txt", 1)),
        FilePassage("zwei ü", Place("a.txt", 3)),
        FilePassage("three", Place("a.txt", 5)),
    ]


def test_files_follow_each_other(write) -> None:
    write("a.txt", b"one\n")
    write("b.jsonl", b'{"text": "two"}\n')
    read = read_passages(["b.jsonl", "a.txt"], jsonl=False)
    assert [str(passage.place) for passage in read] == ["b.jsonl:1", "a.txt:1"]


def test_json_lines_have_an_id_and_a_title_where_given(write) -> None:
    write(
        "a.jsonl",
        b'{"text": "one", "id": 7}\n\n{"_id": "x", "title": "Two", "text": "two", "more": []}\n',
    )
    one, two = read_passages(["a.jsonl"], jsonl=False)
    assert one == FilePassage("one", Place("a.jsonl", 1), id=7)
    assert two == FilePassage("two", Place("a.jsonl", 3), id="x", title="Two")
    assert (one.content, two.content) == ("one", "Two two")


def test_jsonl_may_be_asked_for_whatever_the_name(write) -> None:
    write("a.txt", b'{"text": "one"}')
    assert read_passages(["a.txt"], jsonl=True)[0].text == "one"
    assert read_passages(["a.txt"], jsonl=False)[0].text == '{"text": "one"}'


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    read = read_passages(["-"], jsonl=False)
    assert [str(passage.place) for passage in read] == ["-:1", "-:2"]
    assert not sys.stdin.closed


def test_a_byte_order_mark_is_no_text(write) -> None:
    write("a.txt", b"\xef\xbb\xbfone")
    assert read_passages(["a.txt"], jsonl=False)[0].text == "one"


def test_an_empty_file_has_no_passages(write) -> None:
    write("a.txt", b"")
    assert read_passages(["a.txt"], jsonl=False) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff", "a.jsonl:2: not UTF-8: invalid start byte, byte 1"),
        (b"{", "a.jsonl:2: not JSON: Expecting property name enclosed in double quotes, column 2"),
        (b"[1]", "a.jsonl:2: expected a JSON object, got list"),
        (b'{"id": 1}', "a.jsonl:2: 'text' must be a string, got nothing"),
        (b'{"text": null}', "a.jsonl:2: 'text' must be a string, got NoneType"),
        (b'{"text": "a", "title": 1}', "a.jsonl:2: 'title' must be a string, got int"),
    ],
)
def test_a_wrong_line_is_named(write, line: bytes, message: str) -> None:
    write("a.jsonl", b'{"text": "one"}\n' + line + b"\n")
    with pytest.raises(InputError) as raised:
        read_passages(["a.jsonl"], jsonl=False)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "message"), [("missing.txt", "No such file"), ("folder", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named(
    write, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"^{name}: {message}"):
        read_passages([name], jsonl=False)
