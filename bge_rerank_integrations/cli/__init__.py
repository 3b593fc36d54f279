"""The command line: ``bge-rerank``."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
import warnings

from ..errors import MissingExtraError

_EXTRA = ("typer", "rich")


def main() -> None:
    """Run ``bge-rerank`` with the arguments of this process.

    Exits with 0; with 1 for an error, named in one line on standard error; with 2 for invalid
    arguments.
    """
    _keep_libraries_quiet()
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        # passages may be in any script, and a pipe's default encoding on Windows is not UTF-8
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit(f"error: {MissingExtraError('cli')}")
    try:
        app(prog_name="bge-rerank")
    except OSError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        sys.exit(f"error: {type(error).__name__}: {error}\n{_kept_traceback(error)}")


def _kept_traceback(error: Exception) -> str:
    """Save the traceback of an unexpected error, and say where."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="bge-rerank-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return f"This is a bug; please report it with the traceback in {file.name}"


def _keep_libraries_quiet() -> None:
    """Silence warnings of libraries; ``-W`` and the libraries' own variables override this."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
