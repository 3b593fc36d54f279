"""The process that listens: its log, event loop, signals and files; uvicorn does the rest."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import uvicorn
from fastapi import FastAPI
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from starlette.types import ASGIApp

from ..errors import ConfigurationError
from .connection_bounds import EXTRA_CONNECTIONS, Connections
from .connections import MAX_HEAD_BYTES, Connection
from .middleware import ConnectionMiddleware
from .routes import current_request
from .settings import LogFormat, LogLevel, ServerSettings

logger = logging.getLogger(__name__)

# models, the log, the listening socket and threads
_OTHER_FILES = 100
_MAX_MESSAGES = 100
# shown after a message as text; the message of a request names its method, path and status
_TEXT_FIELDS = ("seconds", "documents", "tokens", "model", "client", "request_id")
# some megabytes
_MAX_LINES = 10_000
_FLUSH_S = 1.0
_OWN_LOGGERS = ("bge_rerank_integrations", "uvicorn")
# uvloop reads up to 256 kB at once, whatever a protocol asks for
_LoopBase: Any = getattr(asyncio, "ProactorEventLoop", asyncio.SelectorEventLoop)


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
) -> Server:
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
    told = app.state.connections if isinstance(app, FastAPI) else {}
    # uvicorn calls it like the class that its type names
    protocol: Any = partial(Connection, Connections(settings, **told))
    config = _Config(
        ConnectionMiddleware(app),
        host=host,
        port=port,
        http=protocol,
        # the connection refuses longer ones first
        h11_max_incomplete_event_size=2 * MAX_HEAD_BYTES,
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
    config.tls_timeouts = {"ssl_handshake_timeout": settings.header_timeout_s}
    if sys.version_info >= (3, 11):
        config.tls_timeouts["ssl_shutdown_timeout"] = settings.body_timeout_s
    if ssl_certfile is not None:
        try:
            # now, so that a certificate that cannot work is refused before the server starts
            config.load()
        except OSError as error:
            raise ConfigurationError(
                f"{ssl_certfile} with its key cannot be read: {error}"
            ) from error
    return Server(config)


class _Config(uvicorn.Config):
    tls_timeouts: dict[str, float]

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        return partial(ServerLoop, self.tls_timeouts)


class ServerLoop(_LoopBase):  # type: ignore[misc]  # another class on Windows
    """An event loop whose TLS connections begin and end in time, and which does not flood the log.

    uvicorn leaves asyncio's 60 s, in which a silent client holds a connection.
    """

    def __init__(self, tls_timeouts: dict[str, float]) -> None:
        super().__init__()
        self._tls_timeouts = tls_timeouts
        self.set_exception_handler(_log_once_a_second())

    async def create_server(self, *arguments: Any, **named: Any) -> asyncio.Server:
        if named.get("ssl") is not None:
            named |= self._tls_timeouts
        server: asyncio.Server = await super().create_server(*arguments, **named)
        return server


class Server(uvicorn.Server):
    """Stops on SIGHUP as on SIGTERM, and knows its address."""

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the server that has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.config.is_ssl else 'http'}://{shown}:{port}/"

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


def raise_open_files(needed: int) -> int:
    """Raise this process's soft limit of open files, at most to its hard limit.

    Each connection is a file, and a server that may open no more leaves new ones unanswered, probes
    too. Logs a warning where the limit stays below what is needed; where a system has no such
    limit, nothing is done.

    :returns: how many of the needed files may be opened.
    """
    try:
        import resource
    except ModuleNotFoundError:
        return needed

    def allows(limit: int) -> bool:
        return limit == resource.RLIM_INFINITY or limit >= needed

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allows(soft):
        return needed
    # some systems allow less than they say
    with suppress(OSError, ValueError):
        wanted = needed if allows(hard) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < needed:
        logger.warning(
            "this process may open %d files, and its connections need %d: it takes fewer. Raise "
            "the hard limit (ulimit -Hn, LimitNOFILE) or lower --max-connections",
            soft,
            needed,
        )
    return min(soft, needed)


def configure_logging(log_format: LogFormat, level: LogLevel) -> None:
    """Write all log records and warnings of this process to stderr.

    Other libraries' records are written from warnings on.
    """
    handler = QueuedHandler(sys.stderr)
    handler.setFormatter(_formatter(log_format))
    handler.addFilter(add_request_id)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.value.upper())


class QueuedHandler(logging.Handler):
    """Writes lines in a thread: a pipe that nobody reads stops the log and not the server.

    What does not fit into the queue is dropped, and counted in a line of its own later.

    :param stream: where lines are written.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_MAX_LINES)
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until the lines are written, for a second at most."""
        deadline = time.monotonic() + _FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.001)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f"{line}\n{dropped} lines of the log were dropped: nobody read them in time"
            # a full disk or a closed pipe is no reason to stop
            with suppress(OSError, ValueError):
                self._stream.write(f"{line}\n")
                self._stream.flush()
            self._lines.task_done()


def _formatter(log_format: LogFormat) -> logging.Formatter:
    if log_format is LogFormat.TEXT:
        return _TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        # uvicorn's messages once more, with escape codes
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],
    )


class _TextFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        values = {name: getattr(record, name, None) for name in _TEXT_FIELDS}
        shown = [f"{name}={value}" for name, value in values.items() if value is not None]
        return " ".join([super().formatMessage(record), *shown])


def add_request_id(record: logging.LogRecord) -> bool:
    """A filter that lets every record pass, with the id of the request that it belongs to."""
    request = current_request()
    if request is not None:
        record.request_id = request.id
    return True
