"""The playground at ``/``."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from fastapi import FastAPI, Response

_SCRIPTS = ("texts.js", "requests.js", "results.js", "share.js", "start.js")


def add_playground(app: FastAPI) -> None:
    """Serve the playground at ``/``; it sends requests to this server only."""
    style = _read("style.css")
    script = "".join(_read(name) for name in _SCRIPTS)
    # one response: the page works below any path, and needs no cache of its own
    page = _read("page.html").replace("<style></style>", f"<style>{style}</style>")
    page = page.replace("<script></script>", f"<script>{script}</script>")
    headers = {
        # only the page's own script and style, and requests to its own server
        "Content-Security-Policy": (
            f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        # the page belongs to this version of the server
        "Cache-Control": "no-store",
    }

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return Response(page, headers=headers, media_type="text/html")


def _read(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _digest(block: str) -> str:
    digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    return f"'sha256-{digest}'"
