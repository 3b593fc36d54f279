"""The engine of a server: loaded in the background, called with a deadline."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

from bge_rerank_integrations.errors import ConfigurationError, InputError, ScoringError
from bge_rerank_integrations.ranking import Ranking
from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.dialects.base import ScoreRequest, ScoreResult
from bge_rerank_integrations.serving.settings import ServerSettings

if TYPE_CHECKING:
    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.serving.cutting import DocumentCutter

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RefusedError(Exception):
    """The server rejects a request before the engine sees it."""

    def __init__(self, api_error: ApiError) -> None:
        super().__init__(api_error.message)
        self.api_error = api_error


class RerankService:
    """Checks requests against the limits, and calls the engine.

    :param engine: an engine, or a function that makes one; it is called once, in a thread.
    :param settings: the limits.
    :param on_load_error: called on the event loop if the engine cannot be made.
    :raises ConfigurationError: if an engine is given that has ``normalize=True``.
    """

    def __init__(
        self,
        engine: RerankEngine | Callable[[], RerankEngine],
        settings: ServerSettings,
        on_load_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.settings = settings
        self._load = engine if callable(engine) else None
        self._on_load_error = on_load_error
        self._engine = None if callable(engine) else _checked(engine)
        self._error: Exception | None = None
        self._cutter: DocumentCutter | None = None

    async def start(self) -> None:
        """Load the engine; until then every request gets 503."""
        if self._load is None:
            return
        try:
            self._engine = _checked(await asyncio.to_thread(self._load))
        except Exception as error:
            logger.error("the engine could not be loaded: %s", error)
            self._error = error
            if self._on_load_error is not None:
                self._on_load_error(error)

    @property
    def is_alive(self) -> bool:
        """False after the engine could not be loaded, failed or was closed."""
        return self._error is None and (self._engine is None or self._engine.is_alive)

    @property
    def is_ready(self) -> bool:
        """Whether the engine is loaded and alive."""
        return self._engine is not None and self._engine.is_alive

    @property
    def engine(self) -> RerankEngine:
        """The engine.

        :raises RefusedError: if it is not loaded.
        """
        if self._engine is None:
            message = "the model is being loaded" if self._error is None else "there is no model"
            raise RefusedError(ApiError(ErrorKind.UNAVAILABLE, message))
        return self._engine

    @property
    def model_name(self) -> str:
        """The model's name in responses."""
        return self.settings.model_name or self.engine.model

    async def score(self, requests: Sequence[ScoreRequest]) -> ScoreResult:
        """Score all score requests of one API request together.

        :raises RefusedError: if the engine is not loaded.
        :raises InputError: if a limit is exceeded.
        :raises RerankError: see :class:`RerankEngine`; its ``index`` counts the documents of all
            score requests.
        """
        engine = self.engine
        self._check(requests)
        deadline = time.monotonic() + self.settings.timeout_s
        firsts = [0]
        for request in requests:
            firsts.append(firsts[-1] + len(request.documents))
        rankings = await _all(
            [
                self._score_one(engine, request, first, deadline)
                for request, first in zip(requests, firsts, strict=False)
            ]
        )
        logits = [0.0] * firsts[-1]
        for first, ranking in zip(firsts, rankings, strict=False):
            for document in ranking:
                logits[first + document.index] = document.score
        return ScoreResult(
            logits=logits,
            tokens=sum(ranking.total_tokens for ranking in rankings),
            model=self.model_name,
            id=f"rerank-{uuid.uuid4().hex}",
            created=int(time.time()),
        )

    async def _score_one(
        self, engine: RerankEngine, request: ScoreRequest, first: int, deadline: float
    ) -> Ranking:
        try:
            documents = await self._fitted(engine, request)
            left_s = max(deadline - time.monotonic(), 0.0)
            return await engine.arerank(request.query, documents, timeout_s=left_s)
        except (InputError, ScoringError) as error:
            raise _renumbered(error, first) from error

    async def _fitted(self, engine: RerankEngine, request: ScoreRequest) -> Sequence[str]:
        limit, documents = request.max_tokens_per_document, request.documents
        if limit is None and not request.refuse_long:
            return documents
        # here: it loads the engine's libraries, which nothing needs before the engine does
        from bge_rerank_integrations.serving.cutting import DocumentCutter

        if self._cutter is None:
            self._cutter = DocumentCutter(engine.config, engine.max_length)
        if request.refuse_long:
            await asyncio.to_thread(self._cutter.refuse_long, request.query, documents)
        if limit is None:
            return documents
        return await asyncio.to_thread(self._cutter.cut, request.query, documents, limit)

    def _check(self, requests: Sequence[ScoreRequest]) -> None:
        count = sum(len(request.documents) for request in requests)
        if count > self.settings.max_documents:
            raise InputError(
                f"a request may hold {self.settings.max_documents} documents, got {count}"
            )
        index = 0
        for request in requests:
            self._check_length("the query", request.query, None)
            for document in request.documents:
                self._check_length(f"document {index}", document, index)
                index += 1

    def _check_length(self, name: str, text: str, index: int | None) -> None:
        if len(text) > self.settings.max_characters:
            raise InputError(
                f"{name} may hold {self.settings.max_characters} characters, got {len(text)}", index
            )


def _renumbered(error: InputError | ScoringError, first: int) -> InputError | ScoringError:
    """Shift the error's document index from one score request to all of them."""
    if error.index is None:
        return error
    index = first + error.index
    # replaced once: the message may quote the document after its number
    message = str(error).replace(f"document {error.index}", f"document {index}", 1)
    cls = InputError if isinstance(error, InputError) else ScoringError
    return cls(message, index)


def _checked(engine: RerankEngine) -> RerankEngine:
    if engine.config.normalize:
        raise ConfigurationError(
            "a server's engine must have normalize=False: requests ask for either scale"
        )
    return engine


async def _all(work: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """Await all; cancel the others if one fails or the caller is cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
