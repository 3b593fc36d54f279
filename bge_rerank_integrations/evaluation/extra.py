"""Whether the extra ``eval`` is installed."""

from __future__ import annotations

from importlib.util import find_spec

from bge_rerank_integrations.errors import MissingExtraError

_MODULES = ("bm25s", "Stemmer", "ir_measures", "scipy", "matplotlib")


def require_extra() -> None:
    """Check now what is used only after an hour of scoring.

    :raises MissingExtraError: if something of the extra is missing.
    """
    if any(find_spec(name) is None for name in _MODULES):
        raise MissingExtraError("eval")
