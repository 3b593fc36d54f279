"""RemoteReranker: a rerank service with the interface of an engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from typing_extensions import Self

from ..checks import BOOL
from ..errors import ConfigurationError, MissingExtraError

try:
    # fails here, with the pip command, and not in transport.py
    import httpx  # noqa: F401
    import tenacity  # noqa: F401
except ModuleNotFoundError as error:
    if error.name in ("httpx", "tenacity"):
        raise MissingExtraError("remote") from error
    raise

from ..errors import RemoteError
from ..highlighting import Highlighting
from ..inputs import check_documents, check_pairs, check_query
from ..ranking import Ranking, Scores, TokenUsage, check_selection, rank
from .dialects import DIALECTS, check_settings
from .responses import HttpResponse, read_scores
from .transport import Transport, as_rerank_errors

# requests of one call that wait for answers
_MAX_REQUESTS = 8
_TOO_LARGE = 413

# a query and its documents
_Call: TypeAlias = tuple[str, Sequence[str]]
# how many documents a request had, and its response
_Answer: TypeAlias = tuple[int, HttpResponse]


class RemoteReranker(Highlighting):
    """Calls a rerank service; both integrations take it as ``reranker=``.

    Results are matched to documents by index; a response without exactly one finite score per
    document is an error. 408, 429, 502 to 504, 529 and broken connections are retried, after the
    time in ``Retry-After``, until ``timeout_s`` has passed for the whole call. Redirects are not
    followed: the API key is for this service only. A program's own machine is never asked through a
    proxy.

    Long lists become several requests, by number of documents and by size, of which up to 8 are
    under way at once. All requests of a process are made in one thread with an event loop of its
    own, so that connections are kept, whichever thread or event loop calls.

    The ranking methods raise:

    * ``InputError`` for a query or document that is not a string or not valid Unicode;
    * ``OverloadedError`` if the service still answers 429 at the end;
    * ``DeadlineError`` if ``timeout_s`` passes;
    * ``RemoteError`` for every other error of the service, and for an invalid response.

    A pickled reranker has no key: unpickling reads it from the dialect's environment variable.

    :param base_url: the service's base URL, e.g. ``http://127.0.0.1:8787``, ``https://api.cohere.com``,
        ``https://api.cloudflare.com/client/v4/accounts/<id>/ai/run``.
    :param dialect: one of :data:`DIALECTS`.
    :param model: the model's name at the service; None asks for none, and gets the first model of a
        ``bge-rerank`` server. Hosted services need one.
    :param api_key: None reads the dialect's environment variable (``CO_API_KEY``,
        ``JINA_API_KEY``, …; ``BGE_RERANK_API_KEY`` for self-hosted servers).
    :param normalize: report scores from 0 to 1; False requests logits.
    :param timeout_s: seconds for one call, with all its requests and attempts.
    :param max_attempts: maximum number of attempts per request.
    :param max_documents: maximum number of documents per request; None means the dialect's.
    :param transport: an httpx transport to use instead of the network, for tests.
    :raises ConfigurationError: for an invalid setting.
    :raises MissingExtraError: if the extra ``remote`` is not installed.
    """

    def __init__(
        self,
        base_url: str,
        dialect: str = "jina",
        model: str | None = None,
        *,
        api_key: str | None = None,
        normalize: bool = True,
        timeout_s: float = 60.0,
        max_attempts: int = 5,
        max_documents: int | None = None,
        transport: Any = None,
    ) -> None:
        normalize = BOOL.checked("normalize", normalize)
        check_settings(base_url, dialect, normalize, timeout_s, max_attempts, max_documents)
        self._dialect = DIALECTS[dialect]
        if model is None and "{model}" in self._dialect.path:
            raise ConfigurationError(f"model must be a model's name: {dialect} has it in its path")
        key = api_key if api_key is not None else os.environ.get(self._dialect.key_variable)
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key):
            # without the key in the message
            raise ConfigurationError("api_key must be printable ASCII without spaces around it")
        self._settings: dict[str, Any] = {
            "base_url": base_url,
            "dialect": dialect,
            "model": model,
            "normalize": normalize,
            "timeout_s": timeout_s,
            "max_attempts": max_attempts,
            "max_documents": max_documents,
        }
        self._model = model or "default"
        path = self._dialect.path.replace("{model}", quote(self._model, safe="@/"))
        self._url = base_url.rstrip("/") + path
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
        """The model that answered last, where the service names it; before, the one asked for.

        It is ``default`` where none was asked for.
        """
        return self._model

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        retrieval_weight: float = 0.0,
    ) -> Ranking:
        """Rank documents by relevance to the query, best first.

        :param top_n: how many to keep; None keeps all.
        :param score_threshold: keep ``score >= score_threshold``.
        :param retrieval_weight: above 0, blend with the order that the documents are given in.
        """
        check_selection(top_n, score_threshold, retrieval_weight)
        ((scores, order),) = self._ask([(query, _checked(query, documents))])
        return rank(scores, top_n, score_threshold, retrieval_weight, ties=order)

    async def arerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        retrieval_weight: float = 0.0,
    ) -> Ranking:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        check_selection(top_n, score_threshold, retrieval_weight)
        ((scores, order),) = await self._aask([(query, _checked(query, documents))])
        return rank(scores, top_n, score_threshold, retrieval_weight, ties=order)

    def score(self, query: str, documents: Iterable[str]) -> Scores:
        """Score documents against the query.

        :returns: one score a document, in input order.
        """
        ((scores, _),) = self._ask([(query, _checked(query, documents))])
        return scores

    async def ascore(self, query: str, documents: Iterable[str]) -> Scores:
        """Score like :meth:`score`, without blocking the event loop."""
        ((scores, _),) = await self._aask([(query, _checked(query, documents))])
        return scores

    def score_pairs(self, pairs: Iterable[Sequence[str]]) -> Scores:
        """Score (query, document) pairs: one call for each different query.

        :returns: one score a pair, in input order.
        """
        checked = check_pairs(pairs)
        indices: dict[str, list[int]] = {}
        for index, (query, _) in enumerate(checked):
            indices.setdefault(query, []).append(index)
        scores, logits = [0.0] * len(checked), [0.0] * len(checked)
        calls = [(query, [checked[index][1] for index in its]) for query, its in indices.items()]
        answers = [answer for answer, _ in self._ask(calls)]
        for its, answer in zip(indices.values(), answers, strict=True):
            for index, score, logit in zip(its, answer, answer.logits, strict=True):
                scores[index], logits[index] = score, logit
        usage = TokenUsage.joined([answer.usage for answer in answers])
        return Scores(scores, logits, usage, self._model)

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._transport.run(self._transport.close(), self._timeout_s)

    async def aclose(self) -> None:
        """Close like :meth:`close`, without blocking the event loop."""
        await self._transport.arun(self._transport.close())

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
        given = ", ".join(repr(self._settings[name]) for name in ("base_url", "dialect", "model"))
        return f"RemoteReranker({given}, api_key={'[set]' if self._has_key else None})"

    def _ask(self, calls: Sequence[_Call]) -> list[tuple[Scores, list[int]]]:
        """Scores of each call in input order, and the documents' indices in the service's order."""
        with as_rerank_errors():
            answers = self._transport.run(self._answers(calls), self._timeout_s)
            return self._read(answers)

    async def _aask(self, calls: Sequence[_Call]) -> list[tuple[Scores, list[int]]]:
        with as_rerank_errors():
            answers = await self._transport.arun(self._answers(calls))
            return self._read(answers)

    async def _answers(self, calls: Sequence[_Call]) -> list[list[_Answer]]:
        """Ask for all calls at once, up to a bound, and answer or fail as one."""
        deadline = time.monotonic() + self._timeout_s
        places = asyncio.Semaphore(_MAX_REQUESTS)
        requests = [
            [
                asyncio.ensure_future(self._answer(query, chunk, deadline, places))
                for chunk in self._dialect.split(query, documents, self._max_documents)
            ]
            for query, documents in calls
        ]
        tasks = [task for its in requests for task in its]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [[answer for task in its for answer in task.result()] for its in requests]

    async def _answer(
        self, query: str, chunk: Sequence[str], deadline: float, places: asyncio.Semaphore
    ) -> list[_Answer]:
        """The answers of a request; it becomes two where the service says that it is too large."""
        model, raw = self._settings["model"], not self._normalize
        body = self._dialect.body(query, chunk, model, raw=raw)
        try:
            async with places:
                response = await self._transport.post(self._url, body, deadline, len(chunk))
        except RemoteError as error:
            if error.status != _TOO_LARGE or len(chunk) == 1:
                raise
        else:
            return [(len(chunk), response)]
        half = len(chunk) // 2
        return [
            *await self._answer(query, chunk[:half], deadline, places),
            *await self._answer(query, chunk[half:], deadline, places),
        ]

    def _read(self, calls: Sequence[Sequence[_Answer]]) -> list[tuple[Scores, list[int]]]:
        read = [
            read_scores(self._dialect, answers, normalize=self._normalize, model=self._model)
            for answers in calls
        ]
        for scores, _ in read:
            self._model = scores.model
        return read


def _checked(query: str, documents: Iterable[str]) -> list[str]:
    check_query(query)
    return check_documents(documents)


def _unpickled(settings: dict[str, Any], has_key: bool) -> RemoteReranker:
    reranker = RemoteReranker(**settings)
    if has_key and not reranker._has_key:
        variable = DIALECTS[settings["dialect"]].key_variable
        raise ConfigurationError(
            f"a key is never pickled: set {variable} where the reranker is unpickled"
        )
    return reranker
