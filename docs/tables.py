"""Writes the generated tables into the pages: `python docs/tables.py`."""

from __future__ import annotations

import re
from pathlib import Path

from bge_rerank_integrations import CallOptions, EngineConfig, catalog
from bge_rerank_integrations.context.options import ContextOptions
from bge_rerank_integrations.settings import markdown

PAGES = [Path(__file__).with_name(name) for name in ("models.md", "settings.md")]


def with_tables(page: str) -> str:
    """A page's text with its tables as they are now."""
    tables = {
        "EngineConfig": markdown(EngineConfig),
        "CallOptions": markdown(CallOptions),
        "ContextOptions": markdown(ContextOptions),
        "catalog": catalog.markdown(),
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
