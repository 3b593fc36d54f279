"""Prometheus metrics and OpenTelemetry traces of a server.

Requests are counted when they end, the engine's counters when scraped. A trace has a span for each
request and, below it, one for the engine's call; spans hold sizes, times and names, never a text.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterable
from contextlib import nullcontext
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..checks import require
from ..errors import MissingExtraError
from .api_errors import ErrorKind
from .routes import PROBES, REQUEST_ID_HEADER, begin_record, found_route, log_request
from .service import RerankService

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DOCUMENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_GAUGES = {
    "queued_pairs": "Pairs of calls in progress.",
    "in_flight": "Sequences in the current forward passes.",
}
_COUNTERS = {
    "pairs": "Pairs of the calls that were answered.",
    "sequences": "Sequences scored: one per different pair, or one per window.",
    "tokens": "Tokens read.",
    "batches": "Successful forward passes.",
    "retries": "Batches that failed and were split in half.",
    "failures": "Calls that failed in tokenization or in the forward pass.",
    "cache_hits": "Texts found in the token cache.",
    "cache_misses": "Texts tokenized.",
}
_HISTOGRAMS = {
    "queue_wait_s": ("queue_wait_seconds", "Time from a call's submission to its first batch."),
    "batch_sequences": ("batch_sequences", "Sequences in a successful forward pass."),
    "batch_tokens": ("batch_tokens", "Tokens in a successful forward pass."),
}


class Metrics:
    """The metrics of one server, in their own registry.

    :param service: the service whose engines are scraped.
    """

    def __init__(self, service: RerankService) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(service))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        _add_build_info(self._registry)
        self.requests = Counter(
            "bge_rerank_requests",
            "Requests answered; 499 means that the client disconnected.",
            ("path", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "bge_rerank_request_seconds",
            "Time from the request to the end of its response.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.documents = Histogram(
            "bge_rerank_request_documents",
            "Documents in a request.",
            buckets=_DOCUMENTS,
            registry=self._registry,
        )
        self.truncated_documents = Counter(
            "bge_rerank_truncated_documents",
            "Documents that the model did not read to their ends.",
            registry=self._registry,
        )
        self.errors = Counter(
            "bge_rerank_errors",
            "Requests that were refused or failed, by cause.",
            ("cause",),
            registry=self._registry,
        )
        for kind in ErrorKind:
            # from the start: a rate needs the 0 before the 1
            self.errors.labels(kind.value)
        self.in_progress = Gauge(
            "bge_rerank_requests_in_progress",
            "Requests in progress.",
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)


def _add_build_info(registry: CollectorRegistry) -> None:
    # from the packages' metadata: a server that is loading has not imported torch yet
    versions = {name: version(name) for name in ("torch", "transformers")}
    versions |= {"version": __version__, "python": platform.python_version()}
    Info("bge_rerank_build", "Versions of this server.", registry=registry).info(versions)


class RequestMiddleware:
    """Gives each request its id, in the response too; counts and logs it when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record, route = begin_record(scope), found_route(scope)
        status, start = 500, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = record.id
            await send(message)

        # arbitrary paths would create arbitrary labels
        counted = nullcontext() if route is None else self._metrics.in_progress.track_inprogress()
        try:
            with counted:
                await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - start
            if route is not None:
                self._metrics.requests.labels(route.path, str(status)).inc()
                self._metrics.seconds.labels(route.path).observe(seconds)
            if scope["path"] not in PROBES:
                log_request(scope, record, status, seconds)


class _EngineCollector(Collector):
    def __init__(self, service: RerankService) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "bge_rerank_ready",
            "1 if all models are loaded and alive.",
            value=self._service.is_ready,
        )
        ready = [model for model in self._service.models if model.is_ready]
        stats = {model.names[0]: model.engine.stats() for model in ready}
        for family, texts in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, text in texts.items():
                metric = family(f"bge_rerank_engine_{name}", text, labels=("model",))
                for model, its in stats.items():
                    metric.add_metric((model,), getattr(its, name))
                yield metric
        for name, (shown, text) in _HISTOGRAMS.items():
            histograms = HistogramMetricFamily(
                f"bge_rerank_engine_{shown}", text, labels=("model",)
            )
            for model, its in stats.items():
                histogram = getattr(its, name)
                bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
                buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
                histograms.add_metric((model,), buckets, histogram.total)
            yield histograms


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
    # imported here: the extra "otel" is needed for nothing else
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return Middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls=",".join(f"{path}$" for path in sorted(PROBES)),
        default_span_details=_name_and_attributes,
        # no span for each piece of a body
        exclude_spans=["receive", "send"],
    )


def _name_and_attributes(scope: Any) -> tuple[str, dict[str, Any]]:
    route = found_route(scope)
    if route is None:
        # arbitrary paths would create arbitrary names
        return scope["method"], {}
    return f"{scope['method']} {route.path}", {"http.route": route.path}
