"""What a request is: its path and service, its id, and its line in the log.

A line holds sizes, times and names; never a text of the request or a key.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..wire import Wire
from ..wire.paths import PATHS
from ..wire.rows import COMMON
from .api_errors import ApiError, ErrorKind

# its name is in configurations of logs
logger = logging.getLogger("bge_rerank_integrations.serving.access_log")

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
_FOUND = "bge_rerank_route"
_VERSIONS = ("1.0", "1.1", "2", "3")


@dataclass(frozen=True)
class Route:
    """A path, and the services that are answered there.

    :param path: the template of the path.
    :param wires: told by the markers in a body.
    """

    path: str
    wires: tuple[Wire, ...]

    def wire_of(self, body: object) -> Wire:
        """Choose the service of a request by the markers in its body, null being none.

        The first service, unless another one's marker is there; of several, the last.
        """
        given = body if isinstance(body, Mapping) else {}
        marked = (
            wire
            for wire in reversed(self.wires)
            if any(given.get(marker) is not None for marker in wire.markers)
        )
        return next(marked, self.wires[0])


ROUTES = tuple(Route(path, wires) for paths, wires in PATHS for path in paths)


def found_route(scope: Scope) -> Route | None:
    """The route that :class:`PathMiddleware` found; None if there is none."""
    route: Route | None = scope.get(_FOUND)
    return route


def wire_at(scope: Scope, body: object = None) -> Wire:
    """The service in whose format an error is reported."""
    route = found_route(scope)
    return COMMON if route is None else route.wire_of(body)


class PathMiddleware:
    """Finds the route of a request, once for all that need it, and makes its path one of ours.

    Everything behind it sees one path a request: without the path below which a proxy shows the
    server, whether the proxy left it or not; without a slash at the end, doubled slashes, and a
    ``/v1`` of the base URL before a path that has its own. A target may be a whole URL (RFC 9112,
    section 3.2.2); other versions of HTTP than the server speaks are refused.

    :param root_path: the path below which a proxy shows the server.
    :param refuse: scope and error → response.
    """

    def __init__(
        self, app: ASGIApp, root_path: str, refuse: Callable[[Scope, ApiError], Response]
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["http_version"] not in _VERSIONS:
            error = ApiError(ErrorKind.VERSION, "send HTTP/1.1")
            response = self._refuse(scope, error)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        path = _own_path(scope["path"], self._root_path)
        # not a copy: what answers a failure of the server sees this scope
        scope.update(path=path, raw_path=path.encode(), **{_FOUND: _find(path)})
        await self._app(scope, receive, send)


class HeadMiddleware:
    """Answers HEAD like GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


def find_route(path: str, root_path: str) -> Route | None:
    """The route of a request's path, as :class:`PathMiddleware` finds it."""
    return _find(_own_path(path, root_path))


def _own_path(path: str, root_path: str) -> str:
    path = re.sub("^https?://[^/]*", "", path)
    if root_path and path.startswith(f"{root_path}/"):
        path = path.removeprefix(root_path)
    path = re.sub("/{2,}", "/", path).rstrip("/") or "/"
    return re.sub(r"^/v1(?=/v[12]/)", "", path)


def _find(path: str) -> Route | None:
    return next((route for pattern, route in _patterns() if pattern.match(path)), None)


@cache
def _patterns() -> list[tuple[re.Pattern[str], Route]]:
    # with line breaks, which no path of the application has: such a path is refused by its service
    return [(re.compile(compile_path(route.path)[0].pattern, re.DOTALL), route) for route in ROUTES]


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


def begin_record(scope: Scope) -> RequestRecord:
    """Begin the record of the request that this task answers."""
    record = RequestRecord(request_id(Headers(scope=scope)))
    # never reset: what the HTTP server logs of a failure comes later, in the same task
    _current.set(record)
    return record


def request_id(headers: Headers) -> str:
    """The client's id of a request, or a new one; see :class:`RequestRecord`."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def log_request(scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
    """Log a request that has ended."""
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
        "client": shown_client(scope["client"]) if scope.get("client") else None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    logger.info("%s %s %d", scope["method"], path, status, extra=known)


def shown_client(address: Sequence[Any] | None) -> str:
    """The client of a connection, fit for a line of the log."""
    return quote(str(address[0]) if address else "", safe=":%[]")[:_MAX_CLIENT]
