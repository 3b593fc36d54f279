"""The engines of a server: loaded in the background, called with a deadline."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracerProvider, Status, StatusCode, TracerProvider

from ..errors import InputError
from ..highlighting import SentenceWindows
from ..ranking import RankedDocument, rank
from ..setting_types import CallOverrides
from .answers import ScoreResult
from .bodies import ScoreRequest
from .models import find_model, served_models
from .routes import current_request
from .settings import ServerSettings

if TYPE_CHECKING:
    from .. import RerankEngine
    from .models import EngineSource


class RerankService:
    """Checks requests against the limits, and calls the engine of the model that they name.

    :param engines: one engine, or several by name; see :func:`served_models`.
    :param settings: the limits.
    :param on_load_error: called on the event loop if an engine cannot be made.
    :param on_ready: called on the event loop when all engines are loaded.
    :param tracer_provider: sends a span of each call of an engine; None sends none.
    """

    def __init__(
        self,
        engines: EngineSource | Mapping[str, EngineSource],
        settings: ServerSettings,
        on_load_error: Callable[[Exception], None] | None = None,
        on_ready: Callable[[], None] | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.settings = settings
        # without a provider its spans are nothing
        self._tracer = (tracer_provider or NoOpTracerProvider()).get_tracer(__name__)
        self.models = served_models(engines)
        self._on_load_error = on_load_error
        self._on_ready = on_ready

    async def start(self) -> None:
        """Load the engines, one after the other; until then requests get 503.

        After one that cannot be loaded no other is begun if somebody is told: the process is about
        to end, and must not end while a thread loads.
        """
        errors = []
        for model in self.models:
            error = await model.load()
            errors += [error] if error is not None else []
            if error is not None and self._on_load_error is not None:
                self._on_load_error(error)
                return
        if self._on_ready is not None and not errors:
            self._on_ready()

    @property
    def is_alive(self) -> bool:
        """False after one of the engines could not be loaded, failed or was closed."""
        return all(model.is_alive for model in self.models)

    @property
    def is_ready(self) -> bool:
        """Whether all engines are loaded and alive."""
        return all(model.is_ready for model in self.models)

    async def score(
        self, request: ScoreRequest, model_in_path: str | None = None, *, ranks: bool = True
    ) -> ScoreResult:
        """Score what an API request asks.

        :param model_in_path: the model that the request's path names; the body's comes first.
        :param ranks: rank the documents; otherwise they stay in their order.
        :raises RefusedError: if no model has that name, or its engine is not loaded.
        :raises InputError: if a limit is exceeded.
        :raises RerankError: see :class:`RerankEngine`.
        """
        # an exception's message stays out of the span: nobody knows what another library writes
        with self._tracer.start_as_current_span(
            "rerank", record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("bge_rerank.documents", len(request.documents))
            answered = current_request()
            if answered is not None:
                span.set_attribute("bge_rerank.request_id", answered.id)
            try:
                result = await self._score(request, model_in_path, ranks=ranks)
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR))
                span.set_attribute("error.type", type(error).__name__)
                raise
            span.set_attribute("bge_rerank.tokens", result.tokens)
            span.set_attribute("bge_rerank.model", result.model)
            return result

    async def _score(
        self, request: ScoreRequest, model_in_path: str | None, *, ranks: bool
    ) -> ScoreResult:
        model = find_model(self.models, request.model, model_in_path)
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
            kept=rank(scores, top_n=request.top_n) if ranks else _in_input_order(scores),
            model=model.names[0],
            id=f"rerank-{uuid.uuid4().hex}",
            created=int(time.time()),
        )
        if request.highlights and isinstance(request.query, str):
            # both calls share the request's time
            options["timeout_s"] = deadline - time.monotonic()
            texts = {kept.index: request.documents[kept.index] for kept in result.kept}
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


def _in_input_order(scores: Sequence[float]) -> list[RankedDocument]:
    return [RankedDocument(index, score) for index, score in enumerate(scores)]
