"""The services that ``RemoteReranker`` asks: their wire formats, paths, keys and limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..checks import is_finite, is_int, require
from ..errors import ConfigurationError
from ..setting_types import API_KEY_VARIABLE
from ..wire import Role, Slot, Template, Wire, put
from ..wire.rows import AZION, CLOUDFLARE, COHERE, COMMON, INFINITY, NIM, TEI, VLLM, VOYAGE


@dataclass(frozen=True)
class Dialect:
    """One service that ``RemoteReranker`` asks; it asks for all results.

    :param path: path below the base URL; ``{model}`` is replaced by the model's name.
    :param key_variable: the environment variable with its API key.
    :param constants: fields of every request.
    :param sends_logits: whether it answers logits where they are asked for.
    :param max_documents: maximum number of documents in one request.
    :param max_bytes: maximum size of one request.
    """

    wire: Wire
    path: str
    key_variable: str = API_KEY_VARIABLE
    constants: Mapping[str, Any] = field(default_factory=dict)
    sends_logits: bool = False
    max_documents: int = 1_000
    # below the 4 MiB of this server and the 2 MB of text-embeddings-inference
    max_bytes: int = 1_900_000

    def body(self, query: str, documents: Sequence[str], model: str | None, *, raw: bool) -> bytes:
        """Build a request body.

        :param model: None leaves it to the service.
        :param raw: request logits.
        """
        values: dict[Role, Any] = {
            Role.QUERY: query,
            Role.DOCUMENTS: documents,
            Role.TEXTS: documents,
        }
        if model and "{model}" not in self.path:
            values[Role.MODEL] = model
        if raw:
            values |= {Role.RAW_SCORES: True, Role.ACTIVATION: False}
        body: dict[str, Any] = {}
        for name, role in self.wire.fields.items():
            if role in values:
                # a service needs one of a role's names
                put(body, name, values.pop(role))
        return json.dumps({**body, **self.constants}, ensure_ascii=False).encode()

    def split(
        self, query: str, documents: Sequence[str], max_documents: int
    ) -> Iterator[Sequence[str]]:
        """Split the documents of a call into requests, by number and by size."""
        room = self.max_bytes - _json_bytes(query)
        start = size = 0
        for index, document in enumerate(documents):
            its = _json_bytes(document)
            is_full = index - start == max_documents or size + its > room
            if is_full and index > start:
                yield documents[start:index]
                start, size = index, 0
            size += its
        if start < len(documents):
            yield documents[start:]

    @cached_property
    def results(self) -> tuple[str, ...]:
        """Path to the list of results in an answer."""
        return _paths(self.wire.answer, list)[0]

    @cached_property
    def result_names(self) -> tuple[str, str]:
        """Names of a result's index and score."""
        (item,) = _at(self.wire.answer, self.results)
        names = {slot: name for name, slot in item.items() if isinstance(slot, Slot)}
        return names[Slot.INDEX], names[Slot.SCORE]

    def tokens_in(self, body: Any) -> int:
        """Tokens that the service read; 0 if an answer does not say."""
        for path in _paths(self.wire.answer, Slot.TOKENS):
            tokens = _at(body, path)
            if is_int(tokens, 0):
                return tokens
        return 0

    def results_in(self, body: Any) -> Any:
        """What stands at the place of the results in an answer."""
        return _at(body, self.results)


def _json_bytes(text: str) -> int:
    """Bytes of a text in a request, at most: quotes, comma, and the name of an object's field."""
    return len(json.dumps(text, ensure_ascii=False).encode()) + 16


def _paths(template: Template, wanted: Slot | type[list[Any]]) -> list[tuple[str, ...]]:
    """Paths to a slot, or to lists of results, those of totals first."""
    if template is wanted or (wanted is list and isinstance(template, list) and template):
        return [()]
    if not isinstance(template, dict):
        return []
    found = [(name, *path) for name, part in template.items() for path in _paths(part, wanted)]
    return sorted(found, key=lambda path: "total" not in path[-1])


def _at(body: Any, path: Sequence[str]) -> Any:
    for key in path:
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


_WITHOUT_TEXTS = {"return_documents": False}
_TO_V1 = "/v1/rerank"

#: reference: each service's API documentation; the tests hold an example of each
DIALECTS: Mapping[str, Dialect] = {
    "cohere": Dialect(COHERE, "/v2/rerank", "CO_API_KEY"),
    "cohere-v1": Dialect(COMMON, _TO_V1, "CO_API_KEY", _WITHOUT_TEXTS),
    "jina": Dialect(COMMON, _TO_V1, "JINA_API_KEY", _WITHOUT_TEXTS, max_documents=2_048),
    "nebul": Dialect(COMMON, _TO_V1, "NEBUL_API_KEY", sends_logits=True),
    "infinity": Dialect(INFINITY, "/rerank", sends_logits=True, max_documents=2_048),
    "vllm": Dialect(VLLM, "/rerank", sends_logits=True),
    "tei": Dialect(
        TEI, "/rerank", constants={"truncate": True}, sends_logits=True, max_documents=32
    ),
    "cloudflare": Dialect(CLOUDFLARE, "/{model}", "CLOUDFLARE_API_TOKEN"),
    "azion": Dialect(AZION, "/{model}", "AZION_TOKEN"),
    "voyage": Dialect(VOYAGE, _TO_V1, "VOYAGE_API_KEY"),
    "nim": Dialect(NIM, "/v1/ranking", "NVIDIA_API_KEY", {"truncate": "END"}, sends_logits=True),
}


def check_settings(
    base_url: str,
    dialect: str,
    normalize: bool,
    timeout_s: float,
    max_attempts: int,
    max_documents: int | None,
) -> None:
    """Check the settings of a ``RemoteReranker``.

    :raises ConfigurationError: for an invalid setting; the message names it.
    """
    # imported here: a missing one is told by reranker.py, with the pip command
    import httpx

    if dialect not in DIALECTS:
        raise ConfigurationError(
            f"dialect must be one of {', '.join(map(repr, DIALECTS))}, got {dialect!r}"
        )
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"base_url must be a URL, got {base_url!r}") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
        # logs would show a password in the URL
        raise ConfigurationError(
            "base_url must be http:// or https:// with a host, without user, password and query"
        )
    if not normalize and not DIALECTS[dialect].sends_logits:
        raise ConfigurationError(f"normalize=False: {dialect} reports no logits")
    is_above_0 = is_finite(timeout_s) and timeout_s > 0
    require(is_above_0, "timeout_s", "a finite number of seconds above 0", timeout_s)
    require(is_int(max_attempts, 1), "max_attempts", "an int of at least 1", max_attempts)
    is_count = max_documents is None or is_int(max_documents, 1)
    require(is_count, "max_documents", "None or an int of at least 1", max_documents)
