"""The playground at ``/``."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import FastAPI, Response


def add_playground(app: FastAPI) -> None:
    """Serve the playground at ``/``; it sends requests to this server only."""
    page = (files(__package__) / "playground.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": _policy(page),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        # the page belongs to this version of the server
        "Cache-Control": "no-store",
    }

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return Response(page, headers=headers, media_type="text/html")


def _policy(page: str) -> str:
    """Allow only the page's own script and style, and requests to its own server."""
    script, style = (
        " ".join(_digest(block) for block in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL))
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(block: str) -> str:
    digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    return f"'sha256-{digest}'"
