"""Importing a module as if another were not installed."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import importlib, importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Missing())
try:
    importlib.import_module({module!r})
except ImportError as error:
    print(type(error).__name__, type(error.__cause__).__name__, error, sep="|")
"""


def import_without(missing: str, module: str) -> list[str]:
    """Import ``module`` in a new process in which ``missing`` cannot be found.

    :returns: the error's class, its cause's class and its message; empty if none was raised.
    """
    program = _PROGRAM.format(missing=missing, module=module)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|", maxsplit=2) if done.stdout else []
