"""The engine of a server: loaded in the background, called with a deadline."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.dialects.base import ScoreRequest, ScoreResult
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.settings import CallOverrides

if TYPE_CHECKING:
    from bge_rerank_integrations import RerankEngine

logger = logging.getLogger(__name__)


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
        self._engine = None if callable(engine) else engine
        self._error: Exception | None = None

    async def start(self) -> None:
        """Load the engine; until then every request gets 503."""
        if self._load is None:
            return
        try:
            self._engine = await asyncio.to_thread(self._load)
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

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Score what an API request asks.

        :raises RefusedError: if the engine is not loaded.
        :raises InputError: if a limit is exceeded.
        :raises RerankError: see :class:`RerankEngine`.
        """
        engine = self.engine
        self._check(request)
        options = CallOverrides(**request.options, timeout_s=self.settings.timeout_s)
        if isinstance(request.query, str):
            scores = await engine.ascore(request.query, request.documents, **options)
        else:
            pairs = list(zip(request.query, request.documents, strict=True))
            scores = await engine.ascore_pairs(pairs, **options)
        return ScoreResult(
            scores=scores,
            model=self.model_name,
            id=f"rerank-{uuid.uuid4().hex}",
            created=int(time.time()),
        )

    def _check(self, request: ScoreRequest) -> None:
        count = len(request.documents)
        if count > self.settings.max_documents:
            raise InputError(
                f"a request may hold {self.settings.max_documents} documents, got {count}"
            )
        for query in [request.query] if isinstance(request.query, str) else request.query:
            self._check_length("the query", query, None)
        for index, document in enumerate(request.documents):
            self._check_length(f"document {index}", document, index)

    def _check_length(self, name: str, text: str, index: int | None) -> None:
        if len(text) > self.settings.max_characters:
            raise InputError(
                f"{name} may hold {self.settings.max_characters} characters, got {len(text)}", index
            )
