"""Reading line by line, with file and line in every error."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bge_rerank_integrations.errors import InputError


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a UTF-8 file that are not blank.

    :returns: ``file:line``, as compilers write it, and the text.
    :raises InputError: naming the file, and the line where one is not UTF-8.
    """
    try:
        # bytes: a line that is not UTF-8 is found, and named, when its turn comes
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{path}:{number}"
                if text := _decode(line.removeprefix(codecs.BOM_UTF8), place).strip():
                    yield place, text
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file.

    :returns: ``file:line`` and the object.
    :raises InputError: naming file and line.
    """
    for place, text in numbered_lines(path):
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: not JSON: {error.msg}, column {error.colno}") from error
        if not isinstance(given, dict):
            raise InputError(f"{place}: expected a JSON object, got {type(given).__name__}")
        yield place, given


def string(given: dict[str, Any], key: str, place: str, *, default: str | None = None) -> str:
    """The string under ``key``.

    :param default: what stands for a missing one; None if it must be there.
    :raises InputError: naming the place, what was expected and what came.
    """
    value = given.get(key, default)
    if not isinstance(value, str):
        found = type(value).__name__ if key in given else "nothing"
        raise InputError(f"{place}: {key!r} must be a string, got {found}")
    return value


def integer(text: str, what: str, place: str) -> int:
    """The whole number that ``text`` is.

    :raises InputError: naming the place, what was expected and what came.
    """
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{place}: {what} must be a whole number, got {text!r}") from error


def _decode(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8: {error.reason}, byte {error.start + 1}") from error
