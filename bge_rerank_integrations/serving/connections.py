"""Connections: how many there are, and how long a slow client may hold one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote

import h11
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from bge_rerank_integrations.serving.access_log import PROBES
from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.middleware import Refuse
from bge_rerank_integrations.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

# connections beyond the bound, each for one request that is a probe or is refused
EXTRA_CONNECTIONS = 100
_EXTRA_HEADER_TIMEOUT_S = 1.0
# as many chunks of one byte take a few milliseconds
_READ_BYTES = 2**13
# a body may come in so many chunks of any size, and in one more for each so many bytes
_FREE_CHUNKS = 1_000
_BYTES_PER_CHUNK = 16
_MAX_CLIENT = 64
_IS_EXTRA = "is_extra_connection"


def bounded_protocol(
    settings: ServerSettings, on_malformed: Callable[[], None]
) -> type[H11Protocol]:
    """Make the protocol of a server's connections.

    :param on_malformed: called for each request that is no HTTP.
    """
    members = {
        "settings": settings,
        "on_malformed": staticmethod(on_malformed),
        "handshakes": {},
    }
    return type("BoundedProtocol", (_BoundedProtocol,), members)


class ExtraConnectionMiddleware:
    """Answers only probes on connections beyond the bound, and closes them.

    :param refuse: scope and error → response.
    """

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _IS_EXTRA not in scope.get("state", {}):
            await self._app(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        app = self._app
        if scope["path"] not in PROBES:
            error = ApiError(ErrorKind.UNAVAILABLE, "the server has no connection to spare")
            app = self._refuse(scope, error)
        await app(scope, receive, send_and_close)


class _Parser(h11.Connection):
    """Refuses bodies in many small chunks: each chunk takes as long as kilobytes in one."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self.refusal = ""
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._chunk_bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_end
            self._chunk_bytes += len(event.data)
            if self._chunks > _FREE_CHUNKS + self._chunk_bytes // _BYTES_PER_CHUNK:
                self.refusal = (
                    f"a body may come in {_FREE_CHUNKS} chunks, and in one more for each "
                    f"{_BYTES_PER_CHUNK} bytes"
                )
                raise h11.RemoteProtocolError(self.refusal)
        return event


class _BoundedProtocol(H11Protocol, asyncio.BufferedProtocol):
    """HTTP/1.1 with a deadline for the head of a request and for taking a response.

    Requests are read in small pieces, as many chunks take time. Between requests an idle connection
    has uvicorn's own deadline. When all connections are in use, a new one replaces the one that has
    been idle for longest.
    """

    settings: ClassVar[ServerSettings]
    on_malformed: ClassVar[staticmethod[[], None]]
    # accepted and not made, as they are in a TLS handshake: until when they may be
    handshakes: ClassVar[dict[_BoundedProtocol, float]]
    conn: _Parser

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._enter_handshake()
        self.conn = _Parser()
        # a view: asyncio's TLS reads into slices of it, and a slice of a bytearray is a copy
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._head_deadline: asyncio.TimerHandle | None = None
        self._response_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.handshakes.pop(self, None)
        timeout_s = self.settings.header_timeout_s
        extra = self._extra_connections()
        if extra > EXTRA_CONNECTIONS:
            transport.abort()
            return
        if extra > 0:
            self.app_state = {**self.app_state, _IS_EXTRA: True}
            timeout_s = min(timeout_s, _EXTRA_HEADER_TIMEOUT_S)
        self._head_deadline = self.loop.call_later(timeout_s, self._refuse_late_head)

    def _enter_handshake(self) -> None:
        """Count this connection before it is made, which with TLS is after the handshake.

        :raises ConnectionRefusedError: if there are too many; asyncio then drops the connection.
        """
        now = self.loop.time()
        ended = [each for each, until in self.handshakes.items() if until < now]
        for each in ended:
            del self.handshakes[each]
        bound = self.settings.max_connections + 2 * EXTRA_CONNECTIONS
        if len(self.connections) + len(self.handshakes) >= bound:
            raise ConnectionRefusedError("too many connections")
        self.handshakes[self] = now + self.settings.header_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._head_deadline, self._response_deadline):
            if deadline is not None:
                deadline.cancel()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # the start of a pipelined request may have come already
        self._watch_head()
        self._watch_closing()

    def shutdown(self) -> None:
        super().shutdown()
        self._watch_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_closing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_to_be_read()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._response_deadline is not None and not self.transport.is_closing():
            self._response_deadline.cancel()
            self._response_deadline = None

    def _extra_connections(self) -> int:
        """How many connections there are beyond the bound, after closing an idle one."""
        bound = self.settings.max_connections
        if len(self.connections) <= bound:
            return 0
        # no WebSockets: all connections have this class
        opened = [it for it in self.connections if not it.transport.is_closing()]
        idle = [it for it in opened if isinstance(it, _BoundedProtocol) and it._idle_until]
        if len(opened) > bound and idle:
            min(idle, key=lambda it: it._idle_until).timeout_keep_alive_handler()
            return len(opened) - 1 - bound
        return len(opened) - bound

    @property
    def _idle_until(self) -> float:
        """When the connection will be closed if no request comes; 0 while there is one."""
        timer = self.timeout_keep_alive_task
        is_idle = timer is not None and self.cycle.response_complete
        return timer.when() if timer is not None and is_idle else 0.0

    def _watch_head(self) -> None:
        """Start the deadline when the first bytes of a request come, end it with its head."""
        if self.conn.their_state is not h11.IDLE:
            if self._head_deadline is not None:
                self._head_deadline.cancel()
                self._head_deadline = None
        elif self._head_deadline is None and self.conn.trailing_data[0]:
            timeout_s = self.settings.header_timeout_s
            self._head_deadline = self.loop.call_later(timeout_s, self._refuse_late_head)

    def _refuse_late_head(self) -> None:
        if self.transport.is_closing():
            return
        if not self.conn.trailing_data[0]:
            # as for any idle connection: a client that has asked nothing expects no answer
            self.timeout_keep_alive_handler()
            return
        text = f"the head of a request must come within {self.settings.header_timeout_s:g} seconds"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, text)

    def send_400_response(self, msg: str) -> None:
        # uvicorn's own line does not say who
        client = quote(str(self.client[0]) if self.client else "", safe=":%[]")[:_MAX_CLIENT]
        logger.warning("malformed request from %s: %s", client, self.conn.refusal or msg)
        self.on_malformed()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(HTTPStatus.BAD_REQUEST, self.conn.refusal or msg)
        else:
            # an early response has begun
            self.transport.close()
            self._watch_closing()

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        response = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._watch_closing()

    def _watch_closing(self) -> None:
        # a transport that closes waits until the client has taken the rest
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._expect_to_be_read()

    def _expect_to_be_read(self) -> None:
        if self._response_deadline is None:
            timeout_s = self.settings.body_timeout_s
            self._response_deadline = self.loop.call_later(timeout_s, self.transport.abort)
