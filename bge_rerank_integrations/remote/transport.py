"""HTTP requests with retries, within the deadline of a call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
import weakref
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from ..errors import ConfigurationError, DeadlineError, OverloadedError, RemoteError, RerankError
from .responses import HttpResponse, error_message

T = TypeVar("T")

# 520 to 524 are Cloudflare's words for a server that does not answer it
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 502, 503, 504, *range(520, 525), 529})
_OVERLOADED_STATUSES = frozenset({429, 529})
# how long a call may outlast its deadline until it is given up from outside
_GRACE_S = 1.0
# jitter: clients that failed together should not retry together
_backoff = wait_exponential(multiplier=0.2, max=10.0) + wait_random(0.0, 0.2)
# no proxy between a program and its own machine, whatever the environment says
_LOOPBACK = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}


class _Background:
    """One event loop in a thread for all requests of the process, begun with the first.

    Connections belong to the loop that opened them. Callers come and go with loops of their own,
    and from any thread; this loop stays, so that connections are kept, no pool is shared between
    threads, and a deadline ends whatever a request waits for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self.running is None:
                self.running = asyncio.new_event_loop()
                run = self.running.run_forever
                threading.Thread(target=run, name="remote-reranker", daemon=True).start()
            return self.running


_background = _Background()
# what a forked child must neither use nor close
_of_parents: list[_Background] = []


def _after_fork() -> None:
    global _background  # its thread is not in the child
    _of_parents.append(_background)
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
    """Posts JSON to one service, from any thread and any event loop, over one pool of connections.

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
        # an answer that is not compressed takes no more memory than it takes bytes
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._secret = secret
        self._max_attempts = max_attempts
        self._handler = handler
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Wait in this thread for what posts.

        :raises RerankError: what ``work`` raises; :class:`DeadlineError` if it hangs.
        """
        future = asyncio.run_coroutine_threadsafe(work, _background.loop())
        try:
            return future.result(timeout_s + _GRACE_S)
        except RerankError:
            raise
        except concurrent.futures.TimeoutError:
            raise _late() from None
        finally:
            future.cancel()

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait like :meth:`run`, without blocking the event loop; cancelling cancels ``work``."""
        future = asyncio.run_coroutine_threadsafe(work, _background.loop())
        return await asyncio.wrap_future(future)

    async def post(self, url: str, body: bytes, deadline: float, documents: int) -> HttpResponse:
        """Send one request, with retries; on the loop of :meth:`run` and :meth:`arun`.

        :param deadline: time of ``time.monotonic()``.
        :param documents: how many the request has; they bound the size of the response.
        :returns: a response of status 200.
        :raises RerankError: see :class:`RemoteReranker`.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_TransientError),
            wait=_wait_s,
            stop=stop_after_attempt(self._max_attempts) | stop_before_delay(_left_s(deadline)),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._post_once(url, body, deadline, _max_bytes(body, documents))
        except _TransientError as transient:
            raise transient.error from transient.__cause__
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def close(self) -> None:
        """Close the connections; on the loop of :meth:`run` and :meth:`arun`."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _post_once(
        self, url: str, body: bytes, deadline: float, max_bytes: int
    ) -> HttpResponse:
        left_s = _left_s(deadline)
        try:
            # httpx restarts its own timeout with every packet
            return self._checked(
                await asyncio.wait_for(self._send(url, body, left_s, max_bytes), left_s)
            )
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        except asyncio.TimeoutError as error:
            raise _late() from error
        except OSError as error:
            # no more files, for one
            raise RemoteError(f"the service cannot be reached: {error}") from error

    async def _send(self, url: str, body: bytes, left_s: float, max_bytes: int) -> HttpResponse:
        async with self._connected().stream("POST", url, content=body, timeout=left_s) as response:
            encoding = response.headers.get("content-encoding", "identity").lower()
            if encoding != "identity":
                raise RemoteError(f"the service answered with Content-Encoding {encoding!r:.40}")
            content = bytearray()
            # of a test's transport it may have been read already, so not the raw ones
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > max_bytes:
                    raise RemoteError(f"the service's answer is larger than {max_bytes} bytes")
        return HttpResponse(response.status_code, response.headers, bytes(content))

    def _connected(self) -> httpx.AsyncClient:
        """The client of this loop.

        :raises ConfigurationError: if the environment asks for a proxy or certificates that cannot
            be used.
        """
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # after a fork, the parent's client is left as it is
            try:
                client = httpx.AsyncClient(
                    headers=self._headers,
                    transport=self._handler,
                    mounts={} if self._handler is not None else _LOOPBACK,
                    # each call has a bound of its own
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
                )
            except (ImportError, ValueError, OSError) as error:
                raise ConfigurationError(
                    f"the proxy or certificates of the environment cannot be used: {error}"
                ) from error
            self._client, self._loop = client, loop
            # a client that nobody closed and nobody has: its connections are closed
            close = weakref.finalize(self, _close_later, loop, client)
            close.atexit = False
        return self._client

    def _checked(self, response: HttpResponse) -> HttpResponse:
        status = response.status
        if status == 200:
            return response
        message, retry_after_s = error_message(response, self._secret), _retry_after_s(response)
        error: RerankError = RemoteError(message, status)
        if status in _OVERLOADED_STATUSES:
            error = OverloadedError(message, retry_after_s or None)
        # Ray's proxy says so of a replica that died
        is_proxys = status == 500 and response.content_type.startswith("text/plain")
        if status in _TRANSIENT_STATUSES or is_proxys:
            raise _TransientError(error, retry_after_s)
        raise error

    def _failure(self, error: httpx.HTTPError) -> Exception:
        if isinstance(error, httpx.TimeoutException):
            return _late()
        failure = RemoteError(f"the service cannot be reached: {type(error).__name__}: {error}")
        if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
            return _TransientError(failure)
        return failure


@contextmanager
def as_rerank_errors() -> Iterator[None]:
    """Whatever fails between a call and its answer fails as one of this package's errors."""
    try:
        yield
    except RerankError:
        raise
    except Exception as error:
        raise RemoteError(
            f"the service cannot be asked: {type(error).__name__}: {error}"
        ) from error


def _close_later(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    # called by garbage collection, wherever it runs: nothing here may wait for a lock
    if loop is _background.running:
        loop.call_soon_threadsafe(lambda: loop.create_task(client.aclose()))


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
    except (TypeError, ValueError, OverflowError):
        return 0.0
