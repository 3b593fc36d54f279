"""The engines of a server: loaded in the background, called with a deadline."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.highlighting import SentenceWindows
from bge_rerank_integrations.serving.dialects.base import ScoreRequest, ScoreResult
from bge_rerank_integrations.serving.models import find_model, served_models
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.setting_types import CallOverrides

if TYPE_CHECKING:
    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.serving.models import EngineSource


class RerankService:
    """Checks requests against the limits, and calls the engine of the model that they name.

    :param engines: one engine, or several by name; see :func:`served_models`.
    :param settings: the limits.
    :param on_load_error: called on the event loop if an engine cannot be made.
    """

    def __init__(
        self,
        engines: EngineSource | Mapping[str, EngineSource],
        settings: ServerSettings,
        on_load_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.settings = settings
        self.models = served_models(engines)
        self._on_load_error = on_load_error

    async def start(self) -> None:
        """Load the engines, one after the other; until then requests get 503."""
        for model in self.models:
            error = await model.load()
            if error is not None and self._on_load_error is not None:
                self._on_load_error(error)

    @property
    def is_alive(self) -> bool:
        """False after one of the engines could not be loaded, failed or was closed."""
        return all(model.is_alive for model in self.models)

    @property
    def is_ready(self) -> bool:
        """Whether all engines are loaded and alive."""
        return all(model.is_ready for model in self.models)

    async def score(self, request: ScoreRequest, model_name: str | None) -> ScoreResult:
        """Score what an API request asks.

        :param model_name: the model that the request names; None means the first one.
        :raises RefusedError: if no model has that name, or its engine is not loaded.
        :raises InputError: if a limit is exceeded.
        :raises RerankError: see :class:`RerankEngine`.
        """
        model = find_model(self.models, model_name)
        engine = model.engine
        self._check(request)
        deadline = time.monotonic() + self.settings.timeout_s
        options = CallOverrides(**request.options, timeout_s=self.settings.timeout_s)
        if isinstance(request.query, str):
            scores = await engine.ascore(request.query, request.documents, **options)
        else:
            pairs = list(zip(request.query, request.documents, strict=True))
            scores = await engine.ascore_pairs(pairs, **options)
        result = ScoreResult(
            scores=scores,
            model=model.names[0],
            id=f"rerank-{uuid.uuid4().hex}",
            created=int(time.time()),
        )
        if request.highlight and isinstance(request.query, str):
            # both calls share the request's time
            options["timeout_s"] = deadline - time.monotonic()
            texts = _returned(request, result)
            return await self._highlighted(engine, request.query, texts, result, options)
        return result

    async def _highlighted(
        self,
        engine: RerankEngine,
        query: str,
        texts: Mapping[int, str],
        result: ScoreResult,
        options: CallOverrides,
    ) -> ScoreResult:
        """The result with the sentences of these documents, by index.

        :raises InputError: if they have more sentences than a request may have documents.
        """
        # those between are empty, so that errors name the request's documents
        documents = [texts.get(index, "") for index in range(len(result.scores))]
        # in a thread: a megabyte of text takes about a second
        windows = await asyncio.to_thread(SentenceWindows, documents)
        if windows.sentence_count > self.settings.max_documents:
            raise InputError(
                f"a request may highlight {self.settings.max_documents} sentences, got "
                f"{windows.sentence_count}: fewer documents (top_n) have fewer"
            )
        with windows.errors_of_documents():
            scores = await engine.ascore(query, windows.texts, **options)
        found = windows.spans(scores)
        highlights = {index: found[index] for index in texts}
        return replace(result, highlights=highlights, highlight_tokens=scores.total_tokens)

    def _check(self, request: ScoreRequest) -> None:
        count = len(request.documents)
        if count > self.settings.max_documents:
            raise InputError(
                f"a request may hold {self.settings.max_documents} documents, got {count}"
            )
        if isinstance(request.query, str):
            self._check_length("the query", request.query, None)
        else:
            for index, query in enumerate(request.query):
                # an index would name a document
                self._check_length(f"query {index}", query, None)
        for index, document in enumerate(request.documents):
            self._check_length(f"document {index}", document, index)

    def _check_length(self, name: str, text: str, index: int | None) -> None:
        if len(text) > self.settings.max_characters:
            raise InputError(
                f"{name} may hold {self.settings.max_characters} characters, got {len(text)}", index
            )


def _returned(request: ScoreRequest, result: ScoreResult) -> dict[int, str]:
    """The documents that are returned, by index."""
    return {kept.index: request.documents[kept.index] for kept in result.ranked(request.top_n)}
