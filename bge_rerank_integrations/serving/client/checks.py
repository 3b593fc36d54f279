"""Settings of a remote reranker that cannot work."""

from __future__ import annotations

import math

import httpx

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.serving.client.dialects import DIALECTS


def check_settings(
    base_url: str,
    dialect: str,
    normalize: bool,
    timeout_s: float,
    max_attempts: int,
    max_documents: int | None,
) -> None:
    """Check what a remote reranker is made from.

    :raises ConfigurationError: naming the setting, what was expected and what came.
    """
    if dialect not in DIALECTS:
        raise ConfigurationError(
            f"dialect must be one of {', '.join(map(repr, DIALECTS))}, got {dialect!r}"
        )
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"base_url must be a URL, got {base_url!r}") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
        # a password in the URL would be in logs
        raise ConfigurationError(
            "base_url must be http:// or https:// with a host, without user, password and query"
        )
    speaks_logits = DIALECTS[dialect].answers_logits or DIALECTS[dialect].raw_options is not None
    if not normalize and not speaks_logits:
        raise ConfigurationError(f"normalize=False: {dialect} reports no logits")
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise ConfigurationError(f"timeout_s must be finite and above 0, got {timeout_s!r}")
    for name, value in (("max_attempts", max_attempts), ("max_documents", max_documents)):
        if value is not None and (isinstance(value, bool) or value < 1):
            raise ConfigurationError(f"{name} must be at least 1, got {value!r}")


def check_key(key: str | None) -> None:
    """Refuse a key that no header can carry.

    :raises ConfigurationError: without the key in its message.
    """
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key):
        raise ConfigurationError("api_key must be printable ASCII without spaces around it")
