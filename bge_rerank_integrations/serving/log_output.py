"""How a server process writes its log: as text, or as one JSON object a line."""

from __future__ import annotations

import logging

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from bge_rerank_integrations.serving.access_log import current_request
from bge_rerank_integrations.serving.settings import LogFormat, LogLevel

# shown after a message as text; the message of a request names its method, path and status
_TEXT_FIELDS = ("seconds", "documents", "tokens", "model", "client", "request_id")
_OWN_LOGGERS = ("bge_rerank_integrations", "uvicorn")


def configure_logging(log_format: LogFormat, level: LogLevel) -> None:
    """Write all log records and warnings of this process to stderr.

    Other libraries' records are written from warnings on.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(log_format))
    handler.addFilter(add_request_id)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.value.upper())


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
