"""HTTP requests with retries, within the deadline of a call."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
import zlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from bge_rerank_integrations.errors import (
    DeadlineError,
    OverloadedError,
    RemoteError,
    RerankError,
)
from bge_rerank_integrations.remote.responses import HttpResponse, error_message

_TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
_ENCODINGS = ("gzip", "deflate")
# jitter: clients that failed together should not retry together
_backoff = wait_exponential(multiplier=0.2, max=10.0) + wait_random(0.0, 0.2)


class _TransientError(Exception):
    """A failure that a retry may fix.

    :param error: raised to the caller after the last attempt.
    :param retry_after_s: how long the service asked to wait.
    """

    def __init__(self, error: RerankError, retry_after_s: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after_s = retry_after_s


class Transport:
    """Posts JSON to one service.

    Connections are pooled: one pool for all threads, and one per event loop.

    :param headers: headers of every request.
    :param secret: removed from error messages.
    :param max_attempts: maximum number of attempts per request.
    :param handler: an httpx transport to use instead of the network, for tests.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        secret: str | None,
        max_attempts: int,
        handler: Any = None,
    ) -> None:
        self._headers = {**headers, "Accept-Encoding": ", ".join(_ENCODINGS)}
        self._secret = secret
        self._max_attempts = max_attempts
        self._handler = handler
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._pid = os.getpid()
        # a pool belongs to the loop that opened its connections
        self._async_clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, httpx.AsyncClient
        ] = weakref.WeakKeyDictionary()

    def post(self, url: str, body: bytes, deadline: float, documents: int) -> HttpResponse:
        """Send one request, with retries.

        :param deadline: time of ``time.monotonic()``.
        :param documents: how many the request has; they bound the size of the response.
        :returns: a response of status 200.
        :raises RerankError: see :class:`RemoteReranker`.
        """
        try:
            for attempt in Retrying(**self._policy(deadline)):
                with attempt:
                    return self._post_once(url, body, deadline, _max_bytes(body, documents))
        except _TransientError as transient:
            raise transient.error from transient.__cause__
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def apost(self, url: str, body: bytes, deadline: float, documents: int) -> HttpResponse:
        """Send like :meth:`post`, without blocking the event loop."""
        try:
            async for attempt in AsyncRetrying(**self._policy(deadline)):
                with attempt:
                    return await self._apost_once(url, body, deadline, _max_bytes(body, documents))
        except _TransientError as transient:
            raise transient.error from transient.__cause__
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections of the threads."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop and of the threads."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
        self.close()

    def _policy(self, deadline: float) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(_TransientError),
            "wait": _wait_s,
            "stop": stop_after_attempt(self._max_attempts) | stop_before_delay(_left_s(deadline)),
            "reraise": True,
        }

    def _post_once(self, url: str, body: bytes, deadline: float, max_bytes: int) -> HttpResponse:
        try:
            with self._sync_client().stream(
                "POST", url, content=body, timeout=_left_s(deadline)
            ) as response:
                received = _Received(response, max_bytes)
                for chunk in () if received.is_complete else response.iter_raw():
                    received.add(chunk)
                    # httpx restarts its timeout with every packet
                    _left_s(deadline)
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        return self._checked(received.response())

    async def _apost_once(
        self, url: str, body: bytes, deadline: float, max_bytes: int
    ) -> HttpResponse:
        left_s = _left_s(deadline)

        async def send() -> HttpResponse:
            async with self._async_client().stream(
                "POST", url, content=body, timeout=left_s
            ) as response:
                received = _Received(response, max_bytes)
                if not received.is_complete:
                    async for chunk in response.aiter_raw():
                        received.add(chunk)
            return received.response()

        try:
            return self._checked(await asyncio.wait_for(send(), left_s))
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        except asyncio.TimeoutError as error:
            raise _late() from error

    def _checked(self, response: HttpResponse) -> HttpResponse:
        if response.status == 200:
            return response
        message, status = error_message(response, self._secret), response.status
        error: RerankError = RemoteError(message, status)
        if status == 429:
            error = OverloadedError(message, _retry_after_s(response) or None)
        if status in _TRANSIENT_STATUSES:
            raise _TransientError(error, _retry_after_s(response))
        raise error

    def _failure(self, error: httpx.HTTPError) -> Exception:
        if isinstance(error, httpx.TimeoutException):
            return _late()
        failure = RemoteError(f"the service cannot be reached: {type(error).__name__}: {error}")
        if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
            return _TransientError(failure)
        return failure

    def _sync_client(self) -> httpx.Client:
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                # a forked child must not use its parent's connections
                self._pid = os.getpid()
                self._client = httpx.Client(headers=self._headers, transport=self._handler)
            return self._client

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = httpx.AsyncClient(headers=self._headers, transport=self._handler)
            self._async_clients[loop] = client
        return client


class _Received:
    """A response as it comes in, decoded up to a size: a small one may unpack to a gigabyte.

    :raises RemoteError: if it grows larger, or is packed in a way that was not asked for.
    """

    def __init__(self, response: httpx.Response, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes
        # a transport may answer with content that is read already
        self.is_complete = response.is_stream_consumed
        self._content = bytearray(response.content if self.is_complete else b"")
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", *_ENCODINGS):
            raise RemoteError(f"the service answered with Content-Encoding {encoding!r:.40}")
        # 47: the headers of gzip and of zlib
        self._decoder = zlib.decompressobj(47) if encoding in _ENCODINGS else None

    def add(self, chunk: bytes) -> None:
        """Take what came in."""
        if self._decoder is not None:
            left = self._max_bytes - len(self._content)
            try:
                chunk = self._decoder.decompress(chunk, left + 1)
            except zlib.error as error:
                raise RemoteError(f"the service's answer cannot be unpacked: {error}") from error
        self._content += chunk
        if len(self._content) > self._max_bytes:
            raise RemoteError(f"the service's answer is larger than {self._max_bytes} bytes")

    def response(self) -> HttpResponse:
        """The whole response."""
        response = self._response
        return HttpResponse(response.status_code, response.headers, bytes(self._content))


def _max_bytes(body: bytes, documents: int) -> int:
    """Bytes of a response, at most: a result for each document, and the texts in escapes."""
    return 2**20 + 1_024 * documents + 4 * len(body)


def _wait_s(state: RetryCallState) -> float:
    transient = state.outcome.exception() if state.outcome is not None else None
    asked_s = transient.retry_after_s if isinstance(transient, _TransientError) else 0.0
    return max(asked_s, _backoff(state))


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise _late()
    return left_s


def _late() -> DeadlineError:
    return DeadlineError("timeout_s passed before the service had answered")


def _retry_after_s(response: HttpResponse) -> float:
    """The seconds of ``Retry-After``, which may be a number or a date."""
    given = response.headers.get("retry-after", "")
    if given.isdecimal():
        return float(given)
    try:
        return max(parsedate_to_datetime(given).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return 0.0
