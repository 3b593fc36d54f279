"""Read text and JSON Lines; every error names the file and the line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import InputError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands; as text ``file:line``, as compilers write it.

    :param file: name of the file as it was given.
    :param line: its number, from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def read_lines(
    file: Path | str, stream: IO[bytes] | None = None, *, whole: bool = False
) -> Iterator[tuple[Place, str]]:
    """Read the lines of a UTF-8 file, without the blank ones.

    :param stream: read this instead, e.g. standard input; it stays open.
    :param whole: blank lines and the spaces around lines, too.
    :returns: each line's place, and its text without the spaces around it.
    :raises InputError: if the file cannot be read, or a line is not UTF-8.
    """
    try:
        # bytes: an error in the encoding is found, and named, at its own line
        with open(file, "rb") if stream is None else nullcontext(stream) as lines:
            for number, line in enumerate(lines, start=1):
                place = Place(str(file), number)
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                decoded = _decode(text, place)
                if whole or (decoded := decoded.strip()):
                    yield place, decoded
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


def json_objects(
    file: Path | str, stream: IO[bytes] | None = None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Read the objects of a JSON Lines file; the parameters are those of :func:`read_lines`.

    :returns: each object's place, and the object.
    :raises InputError: if the file cannot be read, or a line is not a JSON object in UTF-8.
    """
    for place, text in read_lines(file, stream):
        yield place, parse_object(text, place)


def parse_object(text: str, place: Place) -> dict[str, Any]:
    """Parse one line.

    :raises InputError: if it is not a JSON object.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error.msg}, column {error.colno}") from error
    if not isinstance(given, dict):
        raise InputError(f"{place}: expected a JSON object, got {type(given).__name__}")
    return given


def string(given: dict[str, Any], key: str, place: Place, *, default: str | None = None) -> str:
    """The string under ``key``.

    :param default: returned where the key is missing; None if it is required.
    :raises InputError: for another type, or if a required key is missing.
    """
    value = given.get(key, default)
    if not isinstance(value, str):
        found = type(value).__name__ if key in given else "nothing"
        raise InputError(f"{place}: {key!r} must be a string, got {found}")
    return value


def _decode(line: bytes, place: Place) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8: {error.reason}, byte {error.start + 1}") from error
