"""Passages from files: one line or one JSON object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import typer

from bge_rerank_integrations.jsonl import Place, json_objects, read_lines, string

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class FilePassage:
    """One passage and where it came from.

    :param place: its file and line; the file ``-`` is standard input.
    :param id: the JSON object's ``id`` or ``_id``, of any type.
    :param title: the JSON object's ``title``.
    """

    text: str
    place: Place
    id: object = None
    title: str = ""

    @property
    def content(self) -> str:
        """What the model reads: title and text, as the BEIR benchmarks join them."""
        return f"{self.title} {self.text}".strip()


def read_passages(names: Iterable[str], *, jsonl: bool) -> list[FilePassage]:
    """Read passages from files; blank lines are skipped.

    :param names: files, or ``-`` for standard input; ``.jsonl`` files are JSON Lines.
    :param jsonl: read every file as JSON Lines, whatever its name.
    :raises InputError: naming the file, and the line where one is wrong.
    """
    return [passage for name in names for passage in _read_file(name, jsonl=jsonl)]


def _read_file(name: str, *, jsonl: bool) -> Iterator[FilePassage]:
    stream = typer.get_binary_stream("stdin") if name == STANDARD_INPUT else None
    if not (jsonl or name.endswith(".jsonl")):
        for place, text in read_lines(name, stream):
            yield FilePassage(text, place)
        return
    for place, given in json_objects(name, stream):
        yield FilePassage(
            string(given, "text", place),
            place,
            given.get("id", given.get("_id")),
            string(given, "title", place, default=""),
        )
