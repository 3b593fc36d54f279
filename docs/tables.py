"""Writes the generated tables into the pages: `python docs/tables.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from bge_rerank_integrations import CallOptions, EngineConfig, catalog
from bge_rerank_integrations.context.options import ContextOptions
from bge_rerank_integrations.settings import Settings

PAGES = [Path(__file__).with_name(name) for name in ("models.md", "settings.md")]


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first column is code."""
    lines = [f"| {' | '.join(headers)} |", "|" + " --- |" * len(headers)]
    lines += [f"| {' | '.join((f'`{first}`', *rest))} |" for first, *rest in rows]
    return "\n".join(lines)


def settings_table(group: type[Settings]) -> str:
    """The settings of one kind, with their defaults and descriptions."""
    rows = ((it.name, f"`{it.default!r}`", it.metadata["description"]) for it in fields(group))
    return table(("setting", "default", ""), rows)


def with_tables(page: str) -> str:
    """A page's text with its tables as they are now."""
    tables = {
        "EngineConfig": settings_table(EngineConfig),
        "CallOptions": settings_table(CallOptions),
        "ContextOptions": settings_table(ContextOptions),
        "catalog": table(catalog.HEADERS, catalog.rows()),
    }
    return re.sub(
        r"<!-- (\w+) -->\n.*?<!-- end -->",
        lambda found: f"<!-- {found[1]} -->\n\n{tables[found[1]]}\n\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
