"""Checks before a body is read (host, API key, size, content type), and the end of a response."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_errors import ApiError, ErrorKind
from .connections import LINGER_S, connection_of, is_beyond_bound
from .routes import AUTH_PATH, HEALTH_PATHS, PROBES, READY_PATHS, found_route

# the playground asks for the key itself; orchestrators probe health without one
PUBLIC_PATHS = frozenset({"/", *HEALTH_PATHS, *READY_PATHS, AUTH_PATH, "/docs", "/openapi.json"})

_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*?)\.?(:\d*)?")

# asyncio's TLS takes whatever is written at once, and tells of no more that waits than a piece
_WRITE_BYTES = 2**16

Refuse = Callable[[Scope, ApiError], Response]


class HostMiddleware:
    """Refuses requests for other host names than the server's.

    A page on the web can point its own name at a loopback address, and would then read this
    server's answers (DNS rebinding). That takes a name: addresses, and clients that name no host,
    are let in.

    :param allowed: the names, without ports.
    :param refuse: scope and error → response.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str], refuse: Refuse) -> None:
        self._app = app
        self._allowed = frozenset(allowed)
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_allowed_host(Headers(scope=scope), self._allowed):
            await self._app(scope, receive, send)
            return
        message = "this server does not answer to that host name; --allowed-host adds one"
        response = self._refuse(scope, ApiError(ErrorKind.HOST, message))
        await response(scope, receive, send)


def is_allowed_host(headers: Headers, allowed: Collection[str]) -> bool:
    """Whether all host names that a request gives are of these, ``localhost`` or addresses."""
    known = {"localhost", *(name.lower() for name in allowed)}
    found = [_HOST.fullmatch(host) for host in headers.getlist("host")]
    names = [each["name"].lower() if each else None for each in found]
    return all(
        name is not None and (not name or name in known or _is_address(name.strip("[]")))
        for name in names
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class KeyMiddleware:
    """Requires an API key on every path except :data:`PUBLIC_PATHS`.

    :param keys: one of them is expected as ``Authorization: Bearer …``, or in ``api-key`` or
        ``x-api-key``, as clients of Azure and Pinecone send it.
    :param refuse: scope and error → response.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], refuse: Refuse) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_public = scope["type"] != "http" or scope["path"] in PUBLIC_PATHS
        if is_public or has_key(Headers(scope=scope), self._keys):
            await self._app(scope, receive, send)
            return
        message = "the API key is missing or wrong: send Authorization: Bearer <key>"
        response = self._refuse(scope, ApiError(ErrorKind.UNAUTHORIZED, message))
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)


def has_key(headers: Headers, keys: Iterable[str]) -> bool:
    """Whether a request carries one of these keys."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    given = [headers.get(name, "") for name in ("api-key", "x-api-key")]
    if scheme.lower() == "bearer":
        given.append(key.strip())
    # all of them, in constant time: the time tells nothing of the keys or of which one matched
    matches = [
        hmac.compare_digest(each.encode("latin-1"), expected.encode())
        for each in given
        for expected in keys
    ]
    return any(matches)


class BodyMiddleware:
    """Rejects a body that is too large, too slow or not plain JSON, before or while it is read.

    :param max_bytes: maximum size of a body.
    :param max_total_bytes: maximum size of the bodies of all requests in progress.
    :param timeout_s: seconds in which all of a body must come.
    :param refuse: scope and error → response.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        max_total_bytes: int,
        timeout_s: float,
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._total_bytes = 0
        self._timeout_s = timeout_s
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope)
        if error is not None:
            await self._refuse(scope, error)(scope, receive, send)
            return
        received, is_read = 0, False
        deadline = time.monotonic() + self._timeout_s

        async def receive_within_limit() -> Message:
            nonlocal received, is_read
            if is_read:
                # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                expected = f"the body must come within {self._timeout_s:g} seconds"
                raise HTTPException(408, expected) from None
            is_read = not message.get("more_body", False)
            size = len(message.get("body", b""))
            received += size
            self._total_bytes += size
            if received > self._max_bytes:
                raise HTTPException(413, _too_large(self._max_bytes))
            if self._total_bytes > self._max_total_bytes:
                # requests that waited would hold what has come of them, and wait for each other
                raise HTTPException(503, "the server holds too many other requests")
            return message

        try:
            await self._app(scope, receive_within_limit, send)
        finally:
            self._total_bytes -= received

    def _error(self, scope: Scope) -> ApiError | None:
        if scope["type"] != "http":
            return None
        if is_beyond_bound(scope) and scope["path"] not in PROBES:
            return ApiError(ErrorKind.UNAVAILABLE, "the server has no connection to spare")
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # a proxy that reads the other one sees other requests here (RFC 9112, section 6.1)
            message = "send either Content-Length or Transfer-Encoding"
            return ApiError(ErrorKind.MALFORMED, message)
        if scope["method"] != "POST" or found_route(scope) is None:
            return None
        return body_error(headers, self._max_bytes)


def body_error(headers: Headers, max_bytes: int) -> ApiError | None:
    """What is wrong about a body, as far as the head of its request tells."""
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        return ApiError(ErrorKind.TOO_LARGE, _too_large(max_bytes))
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    # Weaviate's module sends none. A page of the web could send a request without asking first
    # only so, and always with its origin.
    is_missing = not content_type and "origin" not in headers
    if not is_missing and not re.fullmatch(r"application/([\w.-]+\+)?json", content_type):
        message = f"send Content-Type: application/json, got {content_type or 'none'!r:.80}"
        return ApiError(ErrorKind.MEDIA_TYPE, message)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        message = f"send a body without Content-Encoding, got {encoding!r:.80}"
        return ApiError(ErrorKind.MEDIA_TYPE, message)
    return None


def _too_large(max_bytes: int) -> str:
    return f"a request may hold {max_bytes} bytes"


class ConnectionMiddleware:
    """Tells a request's connection when it begins and ends, and closes those that must not go on.

    Those are connections beyond the bound, and those whose response came before the request had
    been read. The rest of such a request is read and dropped for a moment: a client that is still
    sending gets a reset instead of the response if the connection closes at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        if connection is None:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_read = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        is_early = False

        async def receive_and_record() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def drop_the_rest() -> None:
            while not is_read:
                await receive_and_record()

        async def send_and_close(message: Message) -> None:
            nonlocal is_early
            if message["type"] == "http.response.start":
                connection.begin_answer()
                is_early = not is_read
                if is_early or connection.is_extra:
                    MutableHeaders(scope=message)["Connection"] = "close"
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            body = message.get("body", b"")
            while len(body) > _WRITE_BYTES:
                await send({**message, "body": body[:_WRITE_BYTES], "more_body": True})
                body = body[_WRITE_BYTES:]
                message = {**message, "body": body}
            if is_early and is_last:
                await send({**message, "more_body": True})
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(drop_the_rest(), LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        connection.begin_request()
        try:
            await self.app(scope, receive_and_record, send_and_close)
        finally:
            connection.end_request()
