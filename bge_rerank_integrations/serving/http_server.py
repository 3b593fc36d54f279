"""The process that listens: connections, signals and the end of a request."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.serving.connections import EXTRA_CONNECTIONS, bounded_protocol
from bge_rerank_integrations.serving.open_files import raise_open_files
from bge_rerank_integrations.serving.settings import ServerSettings

# how long a client may go on sending after it was refused
_LINGER_S = 2.0
# models, the log, the listening socket and threads
_OTHER_FILES = 100
_MAX_MESSAGES = 100


def make_server(
    app: ASGIApp,
    settings: ServerSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_certfile: Path | None = None,
    ssl_keyfile: Path | None = None,
    ssl_keyfile_password: str | None = None,
    forwarded_allow_ips: str = "127.0.0.1",
) -> uvicorn.Server:
    """Make the server of an application; it stops as soon as its requests are answered.

    :param ssl_certfile: a certificate for HTTPS; None serves HTTP.
    :param ssl_keyfile: its key, if the certificate's file does not hold it.
    :param ssl_keyfile_password: opens the key.
    :param forwarded_allow_ips: proxies whose ``X-Forwarded-For`` and ``-Proto`` are believed.
    :raises ConfigurationError: if the certificate and its key cannot be read.
    """
    if ssl_keyfile is not None and ssl_certfile is None:
        raise ConfigurationError("ssl_keyfile was given, and no ssl_certfile")
    besides = 2 * EXTRA_CONNECTIONS + _OTHER_FILES
    files = raise_open_files(settings.max_connections + besides)
    settings = replace(settings, max_connections=max(files - besides, 1))
    on_malformed = app.state.on_malformed if isinstance(app, FastAPI) else lambda: None
    config = uvicorn.Config(
        EarlyResponseMiddleware(app),
        host=host,
        port=port,
        http=bounded_protocol(settings, on_malformed),
        # uvloop, where it is installed, reads up to 256 kB at once, whatever the protocol asks for
        loop="asyncio",
        # an upgraded connection would escape the bounds; no path has one
        ws="none",
        # the process configures its log, and the application logs its requests
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        ssl_keyfile_password=ssl_keyfile_password,
        forwarded_allow_ips=forwarded_allow_ips,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=math.ceil(settings.timeout_s),
    )
    if ssl_certfile is not None:
        try:
            # now, so that a certificate that cannot work is refused before the server starts
            config.load()
        except OSError as error:
            raise ConfigurationError(
                f"{ssl_certfile} with its key cannot be read: {error}"
            ) from error
    return _Server(config, settings)


class _Server(uvicorn.Server):
    """Stops on SIGHUP as on SIGTERM."""

    def __init__(self, config: uvicorn.Config, settings: ServerSettings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_once_a_second())
        if self.config.is_ssl:
            # uvicorn leaves asyncio's 60 s, in which a silent client holds a connection
            timeout_s = self._settings.header_timeout_s
            create = partial(loop.create_server, ssl_handshake_timeout=timeout_s)
            loop.create_server = create  # type: ignore[method-assign]
        await super().startup(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals(), self._hangup_captured():
            try:
                yield
            finally:
                # uvicorn sends the signal once more, and this time it kills the process
                for handler in logging.getLogger().handlers:
                    handler.flush()

    @contextmanager
    def _hangup_captured(self) -> Iterator[None]:
        hangup = getattr(signal, "SIGHUP", None)
        is_main = threading.current_thread() is threading.main_thread()
        # nohup ignores the signal, and keeps the server
        if hangup is None or not is_main or signal.getsignal(hangup) is signal.SIG_IGN:
            yield
            return
        before = signal.signal(hangup, self.handle_exit)
        try:
            yield
        finally:
            signal.signal(hangup, before)


def _log_once_a_second() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Make a handler of a loop's errors that logs each message once a second at most.

    When no more files can be opened, asyncio reports each connection that waits, again and again.
    """
    logged: dict[str, float] = {}

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message, now = str(context.get("message", "")), time.monotonic()
        if now - logged.get(message, -math.inf) >= 1:
            logged[message] = now
            loop.default_exception_handler(context)
        if len(logged) > _MAX_MESSAGES:
            logged.clear()

    return handle


class EarlyResponseMiddleware:
    """Closes the connection after a response that came before its request had been read.

    The rest of the request is read and dropped for a moment: a client that is still sending gets
    a reset instead of the response if the connection closes at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        is_read = is_early = False

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
            if message["type"] == "http.response.start" and not is_read:
                is_early = True
                MutableHeaders(scope=message)["Connection"] = "close"
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if not (is_early and is_last):
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(drop_the_rest(), _LINGER_S)
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, receive_and_record, send_and_close)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
