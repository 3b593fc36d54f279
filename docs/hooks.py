"""Links out of the documentation's folder, and roles of docstrings, as the site needs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"(!?)(\[[^\]]*\])\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:class|meth|func|data):<code>~?(?:[\w.]*\.)?(\w+)</code>")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Called by mkdocs for every page.

    :raises FileNotFoundError: for a link to a file that is not there.
    """

    def address(link: re.Match[str]) -> str:
        image, text, path, anchor = link[1], link[2], link[3], link[4] or ""
        if not (_ROOT / path).exists():
            raise FileNotFoundError(path)
        view = "raw" if image else "tree" if (_ROOT / path).is_dir() else "blob"
        return f"{image}{text}({config.repo_url}/{view}/main/{path}{anchor})"

    return _OUTSIDE.sub(address, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for every page: roles and literal blocks of docstrings are no Markdown."""
    html = re.sub(
        r":(?:class|meth|func|data):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html
    )
    return html.replace("::</p>", ":</p>")
