"""One log line for every request that is no probe, and the request's id.

A line holds sizes, times and names; never a text of the request or a key.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
# text-embeddings-inference's and NIM's paths
HEALTH_PATHS = ("/health", "/tei/health", "/v1/health/live", "/v2/health/live")
# SageMaker's, NIM's, KServe's; Weaviate's module starts when its service is ready
READY_PATHS = (
    "/ready",
    "/ping",
    "/v1/health/ready",
    "/v2/health/ready",
    "/weaviate/.well-known/ready",
)
PROBES = frozenset({*HEALTH_PATHS, *READY_PATHS, "/metrics"})
# where Xinference's client asks whether it needs a key
AUTH_PATH = "/v1/cluster/auth"

_ID = re.compile(r"[!-~]{1,128}")
_MAX_PATH = 200
_MAX_CLIENT = 64


@dataclass
class RequestRecord:
    """What the log tells of a request.

    :param id: the client's ``X-Request-ID`` if it is 1 to 128 characters of printable ASCII
        without spaces, else a new one.
    :param documents: documents, or pairs, that were scored.
    :param tokens: tokens that the model read.
    :param model: the model's name in the response.
    """

    id: str
    documents: int | None = None
    tokens: int | None = None
    model: str | None = None


_current: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


def current_request() -> RequestRecord | None:
    """The record of the request that this task answers; None outside of requests."""
    return _current.get()


class AccessLogMiddleware:
    """Gives each request its id, in the response too, and logs it when it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope))
        # never reset: what the HTTP server logs of a failure comes later, in the same task
        _current.set(record)
        status, start = 500, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = record.id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if scope["path"] not in PROBES:
                _log(scope, record, status, time.perf_counter() - start)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def _log(scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
    # quoted and bounded: clients choose it
    path = quote(scope["path"], safe="/@:")[:_MAX_PATH]
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "seconds": round(seconds, 4),
        "documents": record.documents,
        "tokens": record.tokens,
        "model": record.model,
        # a proxy that is believed may forward what a client wrote
        "client": quote(scope["client"][0], safe=":%[]")[:_MAX_CLIENT]
        if scope.get("client")
        else None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    logger.info("%s %s %d", scope["method"], path, status, extra=known)
