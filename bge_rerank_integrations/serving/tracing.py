"""Spans: one for each request and, below it, one for the engine's call.

They hold sizes, times and names; never a text of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode
from starlette.middleware import Middleware

from bge_rerank_integrations.serving.access_log import PROBES, current_request
from bge_rerank_integrations.serving.dialects.base import ScoreRequest, ScoreResult
from bge_rerank_integrations.serving.routes import find
from bge_rerank_integrations.serving.service import RerankService
from bge_rerank_integrations.serving.settings import ServerSettings

if TYPE_CHECKING:
    from bge_rerank_integrations.serving.models import EngineSource


def tracing_middleware(provider: TracerProvider) -> Middleware:
    """Make a span of each request that is no probe, below the client's span (``traceparent``)."""
    return Middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls=",".join(f"{path}$" for path in sorted(PROBES)),
        default_span_details=_name_and_attributes,
        # no span for each piece of a body
        exclude_spans=["receive", "send"],
    )


def _name_and_attributes(scope: Any) -> tuple[str, dict[str, Any]]:
    found = find(scope["path"])
    if found is None:
        # arbitrary paths would create arbitrary names
        return scope["method"], {}
    return f"{scope['method']} {found[0]}", {"http.route": found[0]}


class TracedService(RerankService):
    """A service with a span around each call of its engine.

    :param provider: what sends the spans; the other parameters are :class:`RerankService`'s.
    """

    def __init__(
        self,
        engines: EngineSource | Mapping[str, EngineSource],
        settings: ServerSettings,
        on_load_error: Callable[[Exception], None] | None,
        provider: TracerProvider,
    ) -> None:
        super().__init__(engines, settings, on_load_error)
        self._tracer = provider.get_tracer(__name__)

    async def score(self, request: ScoreRequest, model_name: str | None) -> ScoreResult:
        """Score what an API request asks, in a span."""
        # an exception's message stays out of the span: nobody knows what another library writes
        with self._tracer.start_as_current_span(
            "rerank", record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("bge_rerank.documents", len(request.documents))
            answered = current_request()
            if answered is not None:
                span.set_attribute("bge_rerank.request_id", answered.id)
            try:
                result = await super().score(request, model_name)
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR))
                span.set_attribute("error.type", type(error).__name__)
                raise
            span.set_attribute("bge_rerank.tokens", result.tokens)
            span.set_attribute("bge_rerank.model", result.model)
            return result
