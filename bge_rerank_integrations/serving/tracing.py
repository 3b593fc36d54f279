"""Traces: whether a server sends them, and where to; the standard ``OTEL_…`` variables say so.

There is a span for each request and, below it, one for the engine's call. They hold sizes, times
and names; never a text of the request.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from bge_rerank_integrations import __version__
from bge_rerank_integrations.checks import require
from bge_rerank_integrations.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from starlette.middleware import Middleware

logger = logging.getLogger(__name__)

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")


def start_tracing(*, wanted: bool = False) -> TracerProvider | None:
    """Make what sends spans to a collector, over OTLP with HTTP.

    :param wanted: send spans even if no variable names an exporter or an endpoint.
    :returns: None if nobody wants spans; nothing of the extra is imported then.
    :raises ConfigurationError: if the variables name another exporter or protocol.
    :raises MissingExtraError: if spans are wanted and the extra ``otel`` is not installed. Where
        only variables ask for them, that is a warning.
    """
    exporter = os.environ.get(_EXPORTER) or "otlp"
    is_named = any(os.environ.get(name) for name in (_EXPORTER, *_ENDPOINTS))
    is_off = exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or not (wanted or is_named):
        return None
    require(exporter in ("otlp", "console"), _EXPORTER, "'otlp', 'console' or 'none'", exporter)
    for name in _PROTOCOLS:
        protocol = os.environ.get(name) or "http/protobuf"
        require(protocol == "http/protobuf", name, "'http/protobuf'", protocol)
    try:
        return _provider(exporter)
    except ModuleNotFoundError as error:
        missing = MissingExtraError("otel")
        if wanted:
            raise missing from error
        logger.warning("no traces are sent: %s", missing)
        return None


def _provider(exporter: str) -> TracerProvider:
    import opentelemetry.instrumentation.asgi  # noqa: F401  # the rest of the extra
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    defaults = {"service.name": "bge-rerank", "service.version": __version__}
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come first
    resource = Resource.create({**defaults, **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(resource=resource)
    sends_to = OTLPSpanExporter() if exporter == "otlp" else ConsoleSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(sends_to))
    return provider


def tracing_middleware(provider: TracerProvider) -> Middleware:
    """Make a span of each request that is no probe, below the client's span (``traceparent``)."""
    # imported here: the extra "otel" is needed for nothing else, and the command line reads this
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from starlette.middleware import Middleware

    from bge_rerank_integrations.serving.access_log import PROBES

    return Middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls=",".join(f"{path}$" for path in sorted(PROBES)),
        default_span_details=_name_and_attributes,
        # no span for each piece of a body
        exclude_spans=["receive", "send"],
    )


def _name_and_attributes(scope: Any) -> tuple[str, dict[str, Any]]:
    from bge_rerank_integrations.serving.routes import found_route

    route = found_route(scope)
    if route is None:
        # arbitrary paths would create arbitrary names
        return scope["method"], {}
    return f"{scope['method']} {route.path}", {"http.route": route.path}
