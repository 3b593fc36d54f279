"""Checks before a body is read (host, API key, size, content type), and the end of a response."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_errors import ApiError, ErrorKind
from .connections import LINGER_S, connection_of, is_beyond_bound
from .routes import AUTH_PATH, HEALTH_PATHS, PROBES, READY_PATHS, found_route
from .settings import ServerSettings

# the playground asks for the key itself; orchestrators probe health without one
PUBLIC_PATHS = frozenset({"/", *HEALTH_PATHS, *READY_PATHS, AUTH_PATH, "/docs", "/openapi.json"})

_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*?)\.?(:\d*)?")

# asyncio's TLS takes whatever is written at once, and tells of no more that waits than a piece
_WRITE_BYTES = 2**16

Refuse = Callable[[Scope, ApiError], Response]


class HeadCheckMiddleware:
    """Refuses requests by their heads, and bodies that are too large or too slow.

    :param refuse: scope and error → response.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, refuse: Refuse) -> None:
        self._app = app
        self._settings = settings
        self._refuse = refuse
        # of all requests in progress
        self._total_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope)
        if error is not None:
            await self._refuse(scope, error)(scope, receive, send)
            return
        settings = self._settings
        received, is_read = 0, False
        deadline = time.monotonic() + settings.body_timeout_s

        async def receive_within_limit() -> Message:
            nonlocal received, is_read
            if is_read:
                # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                expected = f"the body must come within {settings.body_timeout_s:g} seconds"
                raise HTTPException(408, expected) from None
            is_read = not message.get("more_body", False)
            size = len(message.get("body", b""))
            received += size
            self._total_bytes += size
            if received > settings.max_body_bytes:
                raise HTTPException(413, _too_large(settings))
            if self._total_bytes > settings.max_total_body_bytes:
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
        headers = Headers(scope=scope)
        error = access_error(headers, scope["path"], self._settings)
        if error is not None:
            return error
        if is_beyond_bound(scope) and scope["path"] not in PROBES:
            return ApiError(ErrorKind.UNAVAILABLE, "the server has no connection to spare")
        if "content-length" in headers and "transfer-encoding" in headers:
            # a proxy that reads the other one sees other requests here (RFC 9112, section 6.1)
            message = "send either Content-Length or Transfer-Encoding"
            return ApiError(ErrorKind.MALFORMED, message)
        if scope["method"] != "POST" or found_route(scope) is None:
            return None
        return body_error(headers, self._settings)


def access_error(headers: Headers, path: str, settings: ServerSettings) -> ApiError | None:
    """Whether a request names another host than the server's, or lacks a key that it needs.

    A page on the web can point its own name at a loopback address, and would then read this
    server's answers (DNS rebinding). That takes a name: addresses, and clients that name no host,
    are let in.
    """
    hosts, keys = headers.getlist("host"), settings.api_keys
    if settings.allowed_hosts and not all(_is_allowed(host, settings) for host in hosts):
        message = "this server does not answer to that host name; --allowed-host adds one"
        return ApiError(ErrorKind.HOST, message)
    if keys and path not in PUBLIC_PATHS and not _has_key(headers, keys):
        message = "the API key is missing or wrong: send Authorization: Bearer <key>"
        return ApiError(ErrorKind.UNAUTHORIZED, message)
    return None


def _is_allowed(host: str, settings: ServerSettings) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["name"].lower()
    known = {"", "localhost", *(allowed.lower() for allowed in settings.allowed_hosts)}
    return name in known or _is_address(name.strip("[]"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _has_key(headers: Headers, keys: Iterable[str]) -> bool:
    """Whether a request has one of the keys, also as clients of Azure and Pinecone send it."""
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


def body_error(headers: Headers, settings: ServerSettings) -> ApiError | None:
    """What is wrong about a body, as far as the head of its request tells."""
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_body_bytes:
        return ApiError(ErrorKind.TOO_LARGE, _too_large(settings))
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


def _too_large(settings: ServerSettings) -> str:
    return f"a request may hold {settings.max_body_bytes} bytes"


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
