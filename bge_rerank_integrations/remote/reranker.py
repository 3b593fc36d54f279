"""RemoteReranker: a rerank service with the interface of an engine."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any

from typing_extensions import Self

from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError

try:
    import httpx
    import tenacity  # noqa: F401  # fails here, with the pip command, and not in transport.py
except ModuleNotFoundError as error:
    if error.name in ("httpx", "tenacity"):
        raise MissingExtraError("remote") from error
    raise

from bge_rerank_integrations.inputs import check_documents, check_query
from bge_rerank_integrations.ranking import RankedDocument, Ranking, check_selection, rank
from bge_rerank_integrations.remote.dialects import DIALECTS
from bge_rerank_integrations.remote.responses import read_results, read_tokens
from bge_rerank_integrations.remote.transport import Transport
from bge_rerank_integrations.settings import DEFAULT_MODEL


class RemoteReranker:
    """Calls a rerank service; both integrations take it as ``reranker=``.

    Results are matched to documents by index; a response without exactly one finite score per
    document is an error. 429, 502 to 504 and broken connections are retried, after the time in
    ``Retry-After``, until ``timeout_s`` has passed for the whole call. Redirects are not
    followed: the API key is for this service only.

    The ranking methods raise:

    * ``InputError`` for a query or document that is not a string or not valid Unicode;
    * ``OverloadedError`` if the service still answers 429 at the end;
    * ``DeadlineError`` if ``timeout_s`` passes;
    * ``RemoteError`` for every other error of the service, and for an invalid response.

    A pickled reranker has no key: unpickling reads it from the dialect's environment variable.

    :param base_url: the service's base URL, e.g. ``http://127.0.0.1:8787``, ``https://api.cohere.com``,
        ``https://api.cloudflare.com/client/v4/accounts/<id>/ai/run``.
    :param dialect: one of :data:`DIALECTS`.
    :param model: the model's name at the service.
    :param api_key: None reads the dialect's environment variable (``CO_API_KEY``,
        ``JINA_API_KEY``, …; ``BGE_RERANK_API_KEY`` for self-hosted servers).
    :param normalize: report scores from 0 to 1; False requests logits.
    :param timeout_s: seconds for one call, with all its requests and attempts.
    :param max_attempts: maximum number of attempts per request.
    :param max_documents: maximum number of documents per request; None means the dialect's.
        Longer lists become several requests.
    :param transport: an httpx transport to use instead of the network, for tests.
    :raises ConfigurationError: for an invalid setting.
    :raises MissingExtraError: if the extra ``remote`` is not installed.
    """

    def __init__(
        self,
        base_url: str,
        dialect: str = "jina",
        model: str = DEFAULT_MODEL,
        *,
        api_key: str | None = None,
        normalize: bool = True,
        timeout_s: float = 60.0,
        max_attempts: int = 5,
        max_documents: int | None = None,
        transport: Any = None,
    ) -> None:
        _check_settings(base_url, dialect, normalize, timeout_s, max_attempts, max_documents)
        self._dialect = DIALECTS[dialect]
        key = api_key if api_key is not None else os.environ.get(self._dialect.key_variable)
        _check_key(key)
        self._settings = {
            "base_url": base_url,
            "dialect": dialect,
            "model": model,
            "normalize": normalize,
            "timeout_s": timeout_s,
            "max_attempts": max_attempts,
            "max_documents": max_documents,
        }
        self._model = model
        self._url = base_url.rstrip("/") + self._dialect.path.replace("{model}", model)
        self._normalize = normalize
        self._timeout_s = timeout_s
        self._max_documents = max_documents or self._dialect.max_documents
        self._has_key = bool(key)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._transport = Transport(headers, key or None, max_attempts, transport)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        """Rank documents by relevance to the query, best first.

        :param top_n: how many to keep; None keeps all.
        :param score_threshold: keep ``score >= score_threshold``.
        """
        deadline = time.monotonic() + self._timeout_s
        chunks = self._chunks(query, documents, top_n, score_threshold)
        answers = [
            self._transport.post(self._url, self._body(query, chunk), deadline) for chunk in chunks
        ]
        return self._ranking(chunks, answers, top_n, score_threshold)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        deadline = time.monotonic() + self._timeout_s
        chunks = self._chunks(query, documents, top_n, score_threshold)
        answers = [
            await self._transport.apost(self._url, self._body(query, chunk), deadline)
            for chunk in chunks
        ]
        return self._ranking(chunks, answers, top_n, score_threshold)

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._transport.close()

    async def aclose(self) -> None:
        """Close the connections, including those of this event loop."""
        await self._transport.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # frameworks copy components; copies share the connections
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._settings, self._has_key)

    def __repr__(self) -> str:
        settings = self._settings
        return (
            f"RemoteReranker({settings['base_url']!r}, {settings['dialect']!r}, {self._model!r}, "
            f"api_key={'[set]' if self._has_key else None})"
        )

    def _chunks(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None,
        score_threshold: float | None,
    ) -> list[Sequence[str]]:
        """Check a call, and split its documents into requests."""
        check_selection(top_n, score_threshold)
        check_query(query)
        texts = check_documents(documents)
        size = self._max_documents or max(len(texts), 1)
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def _body(self, query: str, chunk: Sequence[str]) -> bytes:
        raw = not self._normalize
        return json.dumps(
            self._dialect.body(query, chunk, self._model, raw=raw), ensure_ascii=False
        ).encode()

    def _ranking(
        self,
        chunks: Sequence[Sequence[str]],
        answers: Sequence[Any],
        top_n: int | None,
        score_threshold: float | None,
    ) -> Ranking:
        results: list[RankedDocument] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            first = len(results)
            results += [
                RankedDocument(first + result.index, result.score)
                for result in read_results(self._dialect, answer, len(chunk))
            ]
        ranked = rank(
            # in the service's order: it ranks by logits, many of which become a score of 1.0
            [result.score for result in results],
            top_n=top_n,
            score_threshold=score_threshold,
            # other dialects report normalized scores, or logits on request
            normalize=self._normalize and self._dialect.answers_logits,
        )
        kept = tuple(RankedDocument(results[place.index].index, place.score) for place in ranked)
        tokens = sum(read_tokens(self._dialect, answer) for answer in answers)
        return Ranking(kept, tokens, self._model)


def _check_settings(
    base_url: str,
    dialect: str,
    normalize: bool,
    timeout_s: float,
    max_attempts: int,
    max_documents: int | None,
) -> None:
    """Check the settings.

    :raises ConfigurationError: for an invalid setting; the message names it.
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
        # logs would show a password in the URL
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


def _check_key(key: str | None) -> None:
    """Check that a header can carry the key.

    :raises ConfigurationError: if it cannot; the message does not show the key.
    """
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key):
        raise ConfigurationError("api_key must be printable ASCII without spaces around it")


def _unpickled(settings: dict[str, Any], has_key: bool) -> RemoteReranker:
    reranker = RemoteReranker(**settings)
    if has_key and not reranker._has_key:
        variable = DIALECTS[settings["dialect"]].key_variable
        raise ConfigurationError(
            f"a key is never pickled: set {variable} where the reranker is unpickled"
        )
    return reranker
