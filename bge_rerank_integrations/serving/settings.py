"""What a server allows, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bge_rerank_integrations.errors import ConfigurationError


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server.

    :param api_key: what every request must bring as ``Authorization: Bearer …``; None lets all in.
    :param model_name: the name that answers carry; None means the engine's own.
    :param max_documents: documents (or pairs) in one request, at most.
    :param max_characters: characters in one text, at most.
    :param max_body_bytes: size of one request, at most.
    :param timeout_s: seconds after which a request is answered with 504.
    :param retry_after_s: what the ``Retry-After`` of a 429 or 503 says.
    :raises ConfigurationError: naming the setting, what was expected and what came.
    """

    api_key: str | None = field(default=None, repr=False)
    model_name: str | None = None
    max_documents: int = 2_048
    max_characters: int = 200_000
    max_body_bytes: int = 16 * 2**20
    timeout_s: float = 60.0
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        if self.api_key is not None and not (self.api_key and self.api_key.isascii()):
            raise ConfigurationError("api_key must be None or a non-empty ASCII string")
        for name in ("max_documents", "max_characters", "max_body_bytes", "retry_after_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be an int of at least 1, got {value!r}")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ConfigurationError(
                f"timeout_s must be a finite number of seconds above 0, got {self.timeout_s!r}"
            )
