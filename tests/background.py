"""Programs that run beside the tests from the beginning on: the tests that wait for them come last.

``@pytest.mark.background(PROGRAM)`` starts one once it is known that its test will run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class Background:
    """A program; its output goes to files, so that nothing of it lives in this process.

    :param arguments: what would follow ``python``.
    :param writes_files: whether it runs in its own :attr:`folder`, instead of this process's.
    :param settings: more of :class:`subprocess.Popen`'s.
    """

    def __init__(self, *arguments: str, writes_files: bool = False, **settings: Any) -> None:
        self._writes_files = writes_files
        self._arguments = arguments
        self._settings = settings
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, once."""
        if self._process is not None:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="background-")
        if self._writes_files:
            self._settings["cwd"] = self.folder
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments], stdout=out, stderr=err, **self._settings
            )

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its status and output, once it has ended."""
        self.start()
        assert self._process is not None
        status = self._process.wait()
        out, err = (self._file(name).read_text("utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(self._arguments, status, out, err)

    def end(self) -> None:
        """Kill it if it runs, and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where its files are, until it is ended."""
        assert self._folder is not None
        return Path(self._folder.name)

    def _file(self, name: str) -> Path:
        return self.folder / name


def programs_of(items: Sequence[pytest.Item]) -> list[Background]:
    """The programs that tests wait for."""
    return [mark.args[0] for item in items for mark in item.iter_markers("background")]
