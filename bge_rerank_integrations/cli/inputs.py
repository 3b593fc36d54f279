"""Passages from files: one a line, or one JSON object a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO

import typer

from bge_rerank_integrations.errors import InputError

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class FilePassage:
    """One passage and where it came from.

    :param file: name of the file as it was given; ``-`` is standard input.
    :param line: its line, from 1.
    :param id: the JSON object's ``id`` or ``_id``, as it is there.
    :param title: the JSON object's ``title``.
    """

    text: str
    file: str
    line: int
    id: object = None
    title: str = ""

    @property
    def content(self) -> str:
        """What the model reads: title and text, as the BEIR benchmarks join them."""
        return f"{self.title} {self.text}".strip()

    @property
    def place(self) -> str:
        """File and line, as compilers write them."""
        return f"{self.file}:{self.line}"


def read_passages(names: Iterable[str], *, jsonl: bool) -> list[FilePassage]:
    """Read passages from files; blank lines are skipped.

    :param names: files, or ``-`` for standard input; ``.jsonl`` files are JSON Lines.
    :param jsonl: read every file as JSON Lines, whatever its name.
    :raises InputError: naming the file, and the line where one is wrong.
    """
    passages: list[FilePassage] = []
    for name in names:
        parse = _from_json if jsonl or name.endswith(".jsonl") else FilePassage
        number = 0
        try:
            with _open(name) as stream:
                for number, line in enumerate(stream, start=1):
                    if text := _decode(line, first=number == 1):
                        passages.append(parse(text, name, number))
        except ValueError as error:
            raise InputError(f"{name}:{number}: {error}", len(passages)) from error
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}", len(passages)) from error
    return passages


def _open(name: str) -> AbstractContextManager[IO[bytes]]:
    # bytes: a line that is not UTF-8 is found, and named, when its turn comes
    if name == STANDARD_INPUT:
        return nullcontext(typer.get_binary_stream("stdin"))
    return open(name, "rb")


def _decode(line: bytes, *, first: bool) -> str:
    try:
        return (line.removeprefix(codecs.BOM_UTF8) if first else line).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason}, byte {error.start + 1}") from error


def _from_json(text: str, file: str, line: int) -> FilePassage:
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}, column {error.colno}") from error
    if not isinstance(given, dict):
        raise ValueError(f"a JSON object was expected, got {type(given).__name__}")
    for key in ("text", "title"):
        if not isinstance(given.get(key, "" if key == "title" else None), str):
            found = type(given[key]).__name__ if key in given else "nothing"
            raise ValueError(f"{key!r} must be a string, got {found}")
    return FilePassage(
        given["text"], file, line, given.get("id", given.get("_id")), given.get("title", "")
    )
