"""A connection: how long a slow client may hold it, and requests that are refused by their heads.

uvicorn speaks HTTP. What it does not bound is bounded around it: a protocol between asyncio and
uvicorn's own sees every byte and hands it on, and a middleware tells that protocol when a request
begins and ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from .connection_bounds import EXTRA_CONNECTIONS, Connections
from .routes import shown_client

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 2**16
_EXTRA_HEADER_TIMEOUT_S = 1.0
# as many chunks of one byte take a few milliseconds
_READ_BYTES = 2**13
# a body may come in so many chunks of any size, and in one more for each so many bytes
_FREE_CHUNKS = 1_000
_BYTES_PER_CHUNK = 16
# of a chunk of fewer than 16 bytes: one digit and two line ends
_CHUNK_FRAME_BYTES = 5
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,15})\s")
# how long a client may go on sending after it was refused
LINGER_S = 2.0
_KEY = "bge_rerank_connection"


class Connection(asyncio.Protocol, asyncio.BufferedProtocol):
    """HTTP/1.1 by uvicorn, with a deadline for the head of a request and for taking a response.

    Bytes are read in small pieces, as many chunks take time. Between requests an idle connection
    has uvicorn's own deadline.

    :param connections: of the server; :class:`functools.partial` gives them, and uvicorn the rest.
    """

    transport: asyncio.Transport

    def __init__(
        self, connections: Connections, *, app_state: dict[str, Any], **named: Any
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._settings = connections.settings
        connections.enter_handshake(self, self._loop.time())
        self._http = H11Protocol(app_state={**app_state, _KEY: self}, **named)
        # a view: asyncio's TLS reads into slices of it, and a slice of a bytearray is a copy
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._head_deadline: asyncio.TimerHandle | None = None
        self._response_deadline: asyncio.TimerHandle | None = None
        self.is_extra = False
        # when the last request ended; 0 before one, in one, and when the next one has begun
        self.idle_since = 0.0
        # requests of which the application knows, and whether the last one's answer has begun
        self._requests = 0
        self._has_answer = self._is_chunked = self._is_paused = self._is_refused = False
        # of the request: its head until the empty line, then what came after it
        self._head = self._last = b""
        self._head_ended = False
        self._length = self._body_bytes = self._line_ends = 0
        # of a request that was refused by its head: what is still to come
        self._to_drop = 0
        # the start of a request that waits for its turn
        self._waiting = b""

    @property
    def is_silent(self) -> bool:
        """Whether nothing of a request has come, or nothing since the last one."""
        began = self._head or self._head_ended or self._requests
        return not (began or self._waiting or self._to_drop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # paused while the client has anything to take: asyncio pauses a plain connection above this
        # number of bytes, and one with TLS from it on
        high = 0 if transport.get_extra_info("sslcontext") is None else 1
        self._http.connection_made(transport)
        transport.set_write_buffer_limits(high=high, low=0)
        extra = self._connections.add(self)
        if extra > EXTRA_CONNECTIONS:
            transport.abort()
            return
        self.is_extra = extra > 0
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.opened.pop(self, None)
        for deadline in (self._head_deadline, self._response_deadline):
            if deadline is not None:
                deadline.cancel()
        self._http.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._is_refused:
            return
        data, self._waiting = self._waiting + data, b""
        data = self._without_refused(data)
        if self.is_silent and data.startswith(b"POST ") and not self._connections.may_begin(self):
            self._waiting = data
            # it is not idle any more
            self.idle_since = 0.0
            self._expect_head()
            self.transport.pause_reading()
            return
        if not data:
            return
        refusal = self._count(data)
        if refusal is not None:
            self._refuse(*refusal)
            return
        try:
            self._http.data_received(data)
        except h11.LocalProtocolError:
            # what came after an early response is no HTTP
            self.transport.close()
        # uvicorn closes a connection here if what came is no HTTP, and only then
        if self.transport.is_closing():
            self._report("Invalid HTTP request received.")

    def begin(self) -> None:
        """It is the turn of the request that waited."""
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(b"")

    def _without_refused(self, data: bytes) -> bytes:
        """Answer requests that are refused by their heads, and drop their bodies.

        uvicorn sees nothing of them: such a head begins a piece of data, and all of it is there.

        :returns: what is left for others.
        """
        while data:
            if not self._to_drop:
                end = data.find(b"\r\n\r\n") + 4
                if end < 4 or self.is_extra or not self.is_silent:
                    return data
                refused = self._connections.refuse(data[:end])
                if refused is None:
                    return data
                if self._is_paused:
                    # it sends requests and does not take their responses
                    self.transport.abort()
                    return b""
                response, self._to_drop = refused
                self.transport.write(response)
                data = data[end:]
                self.idle_since = 0.0
                self._end_after(self._settings.body_timeout_s, self.transport.close)
            dropped = min(self._to_drop, len(data))
            self._to_drop -= dropped
            data = data[dropped:]
            if not self._to_drop:
                self.idle_since = self._loop.time()
                self._end_after(self._settings.keep_alive_s, self.transport.close)
        return data

    def eof_received(self) -> None:
        self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()
        self._is_paused = True
        if self._response_deadline is None:
            timeout_s = self._settings.body_timeout_s
            self._response_deadline = self._loop.call_later(timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._http.resume_writing()
        self._is_paused = False
        self._end_response()

    def _end_response(self) -> None:
        if self._response_deadline is not None and not (self._is_paused or self._requests):
            self._response_deadline.cancel()
            self._response_deadline = None

    def begin_request(self) -> None:
        """The application has the head of a request."""
        self._requests += 1
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def begin_answer(self) -> None:
        """The answer's head goes out."""
        self._has_answer = True

    def end_request(self) -> None:
        """The answer has gone out."""
        self._requests -= 1
        self._has_answer = False
        self._end_response()
        self.idle_since = self._loop.time()
        # the end of a body in chunks is unknown here
        more = 0 if self._is_chunked else self._body_bytes - self._length
        rest = self._last[-more:] if more > 0 else b""
        self._head, self._head_ended = b"", False
        self._body_bytes = self._line_ends = 0
        if rest:
            # the start of the next request has come already
            self._count(rest)

    def _count(self, data: bytes) -> tuple[HTTPStatus, str] | None:
        """Follow a request's bytes.

        :returns: why it is refused, if it is.
        """
        if not (self._head_ended or self._requests):
            if self.idle_since or self._head_deadline is None:
                self._expect_head()
            self.idle_since = 0.0
            self._head += data
            end = max(self._head.find(b"\n\r\n") + 3, self._head.find(b"\n\n") + 2)
            is_whole = end > 2
            if (end if is_whole else len(self._head)) > MAX_HEAD_BYTES:
                text = f"the head of a request may hold {MAX_HEAD_BYTES} bytes"
                return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text
            if not is_whole:
                return None
            head, data, self._head = self._head[:end].lower(), self._head[end:], b""
            length = _LENGTH.search(head)
            self._length = int(length[1]) if length else 0
            self._is_chunked = b"\ntransfer-encoding:" in head
            self._head_ended = True
        self._last = data
        self._body_bytes += len(data)
        self._line_ends += data.count(b"\r\n")
        chunks = self._line_ends // 2
        size = max(self._body_bytes - _CHUNK_FRAME_BYTES * chunks, 0)
        if not self._is_chunked or chunks <= _FREE_CHUNKS + size // _BYTES_PER_CHUNK:
            return None
        return HTTPStatus.BAD_REQUEST, (
            f"a body may come in {_FREE_CHUNKS} chunks, and in one more for each "
            f"{_BYTES_PER_CHUNK} bytes"
        )

    def _expect_head(self) -> None:
        timeout_s = self._settings.header_timeout_s
        if self.is_extra:
            timeout_s = min(timeout_s, _EXTRA_HEADER_TIMEOUT_S)
        self._end_after(timeout_s, self._refuse_late_head)

    def _end_after(self, seconds: float, end: Callable[[], None]) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
        self._head_deadline = self._loop.call_later(seconds, end)

    def _refuse_late_head(self) -> None:
        if not self._head and not self._requests:
            # a client that has asked nothing expects no answer
            self.transport.close()
            return
        text = f"the head of a request must come within {self._settings.header_timeout_s:g} seconds"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, text)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        if not self._has_answer:
            lines = (
                f"HTTP/1.1 {status.value} {status.phrase}",
                "Content-Type: text/plain; charset=utf-8",
                f"Content-Length: {len(text)}",
                "Connection: close",
            )
            self.transport.write(("\r\n".join(lines) + f"\r\n\r\n{text}").encode())
        if status is HTTPStatus.REQUEST_TIMEOUT:
            self.transport.close()
            return
        self._report(text)
        # a client that is still sending gets a reset instead of the answer if it is closed at once
        self._is_refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(LINGER_S, self.transport.close)

    def _report(self, text: str) -> None:
        peer = self.transport.get_extra_info("peername")
        logger.warning("malformed request from %s: %s", shown_client(peer), text)
        self._connections.on_malformed()


def is_beyond_bound(scope: Scope) -> bool:
    """Whether a request came on a connection beyond the bound."""
    connection = connection_of(scope)
    return connection is not None and connection.is_extra


def connection_of(scope: Scope) -> Connection | None:
    """The connection of a request; None where another server than ours runs the application."""
    connection: Connection | None = scope.get("state", {}).get(_KEY)
    return connection if scope["type"] == "http" else None
