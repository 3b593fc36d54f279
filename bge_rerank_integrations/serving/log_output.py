"""How a server process writes its log: as text, or as one JSON object a line."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from bge_rerank_integrations.serving.access_log import current_request
from bge_rerank_integrations.serving.settings import LogFormat, LogLevel

# shown after a message as text; the message of a request names its method, path and status
_TEXT_FIELDS = ("seconds", "documents", "tokens", "model", "client", "request_id")
# some megabytes
_MAX_LINES = 10_000
_FLUSH_S = 1.0
_OWN_LOGGERS = ("bge_rerank_integrations", "uvicorn")


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
