"""Refusals from the head of a request alone, while the engine's queue is full.

To refuse a request as all others are answered takes milliseconds: its body is read, parsed and
checked, and the queue is asked. Thousands of such requests would take the processor from those that
are answered. So what the queue has just refused is refused to others of at least that size for a
moment, before they reach the HTTP server: with prepared bytes, and one line of the log a second.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from starlette.datastructures import Headers

from ..errors import OverloadedError
from .answers import error_response
from .api_errors import ApiError, ErrorKind, from_rerank_error
from .metrics import Metrics
from .middleware import access_error, body_error
from .models import ServedModel
from .routes import find_route, request_id
from .settings import ServerSettings

logger = logging.getLogger(__name__)

# how long a refusal holds for others; then one of them asks the queue again
_HOLDS_S = 0.1
_LOG_EVERY_S = 1.0
# what is not written so goes the usual way, which tells what is wrong about it
_HEAD = re.compile(
    rb"POST (/[!-~]*) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
# they change what is answered, or how
_UNUSUAL = frozenset({"transfer-encoding", "expect", "upgrade", "origin"})


class Shedding:
    """What the queues of a server have refused last."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: tuple[ServedModel, ...] = ()
        # until when each model refuses, and from which size on
        self._refuses: dict[ServedModel, tuple[float, int]] = {}
        self._error = ApiError(ErrorKind.OVERLOADED, "")
        # of each path: the response's head without its last header, its body, its counters
        self._prepared: dict[str, tuple[bytes, bytes, Callable[[], None]]] = {}
        self._unlogged = 0

    def note(
        self,
        models: tuple[ServedModel, ...],
        model: ServedModel,
        headers: Headers,
        error: OverloadedError,
    ) -> None:
        """Remember that a model's queue has refused a request.

        :param models: all of the server: heads do not tell which one is asked.
        """
        size, now = headers.get("content-length", ""), time.monotonic()
        # where calls wait for a place, the next one may get it
        if not size.isdecimal() or model.engine.options.queue_timeout_s:
            return
        until, smallest = self._refuses.get(model, (now, 0))
        if until > now and smallest <= int(size):
            return
        self._models = models
        self._refuses[model] = now + _HOLDS_S, int(size)
        self._error = from_rerank_error(error)
        self._prepared.clear()

    def refuse(self, head: bytes) -> tuple[bytes, int] | None:
        """Refuse a request, if all models refuse one of its size.

        :param head: of the request, with the empty line.
        :returns: the response, and the size of the body that is to be dropped; None if the request
            is to be handled as any other.
        """
        if not self._refuses:
            return None
        size = self._refused_size()
        found = None if size is None else _HEAD.fullmatch(head)
        if size is None or found is None:
            return None
        pairs = [line.partition(b":") for line in found[2].split(b"\r\n")[:-1]]
        headers = Headers(raw=[(name.lower(), value.strip(b" \t")) for name, _, value in pairs])
        lengths = headers.getlist("content-length")
        if len(lengths) != 1 or not lengths[0].isdecimal() or _UNUSUAL.intersection(headers.keys()):
            return None
        length = int(lengths[0])
        is_kept = headers.get("connection", "keep-alive").lower() == "keep-alive"
        if length < size or not is_kept or body_error(headers, self._settings):
            return None
        path = found[1].partition(b"?")[0].decode()
        prepared = self._prepared.get(path) or self._prepare(path)
        if prepared is None or access_error(headers, path, self._settings):
            return None
        start, body, count = prepared
        count()
        self._log_later()
        return b"%b%b\r\n\r\n%b" % (start, request_id(headers).encode(), body), length

    def _refused_size(self) -> int | None:
        now = time.monotonic()
        held = [self._refuses.get(model, (0.0, 0)) for model in self._models]
        if min(until for until, _ in held) > now:
            return max(size for _, size in held)
        if max(until for until, _ in held) <= now:
            self._refuses.clear()
        return None

    def _prepare(self, path: str) -> tuple[bytes, bytes, Callable[[], None]] | None:
        route = find_route(path, self._settings.root_path)
        if route is None:
            return None
        # the first service of the path: only a body tells of others
        response = error_response(route.wires[0], self._error, self._settings.retry_after_s)
        status = HTTPStatus(response.status_code)
        lines = [
            b"HTTP/1.1 %d %b" % (status, status.phrase.encode()),
            b"date: " + formatdate(usegmt=True).encode(),
            *(b"%b: %b" % header for header in response.raw_headers),
            b"x-request-id: ",
        ]
        metrics = self._metrics
        requests = metrics.requests.labels(route.path, str(response.status_code))
        errors = metrics.errors.labels(self._error.kind.value)
        seconds = metrics.seconds.labels(route.path)

        def count() -> None:
            requests.inc()
            errors.inc()
            seconds.observe(0.0)

        self._prepared[path] = prepared = (b"\r\n".join(lines), bytes(response.body), count)
        return prepared

    def _log_later(self) -> None:
        self._unlogged += 1
        if self._unlogged == 1:
            asyncio.get_running_loop().call_later(_LOG_EVERY_S, self._log)

    def _log(self) -> None:
        logger.info("refused %d requests by their heads: the queue is full", self._unlogged)
        self._unlogged = 0
