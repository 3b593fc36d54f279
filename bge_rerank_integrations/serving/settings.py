"""Limits, API keys, timeouts and the log of a server."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ..checks import is_finite, is_int, require
from ..errors import ConfigurationError
from ..setting_types import API_KEY_VARIABLE

# settings of an engine that are not a server's: requests name their scale themselves, and
# ServerSettings.timeout_s is the deadline
NOT_SERVED = ("normalize", "timeout_s")

# settings of an engine whose defaults are others for a server: its clients do not wait for ever,
# and what they no longer wait for takes the time of those who do
SERVED_DEFAULTS: Mapping[str, Any] = {"max_wait_s": 5.0}


class LogFormat(str, Enum):
    """Formats of the log."""

    TEXT = "text"
    JSON = "json"


class LogLevel(str, Enum):
    """Levels of the log, from the fewest lines to the most."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


def _option(default: Any, help_text: str) -> Any:
    """A setting that ``bge-rerank serve`` has as an option of the same name."""
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server; the others are described where they are declared.

    :param api_keys: one of them is required as ``Authorization: Bearer …``; with none, no key is.
    :param allowed_hosts: host names of this server, besides ``localhost`` and addresses; requests
        for others get 421. With none, every host name is answered.
    :param cors_origins: origins (``https://app.example``, or ``*``) whose pages may read answers.
    :raises ConfigurationError: for an invalid setting; the message names it.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_documents: int = _option(2_048, "Maximum number of documents (or pairs) in one request.")
    max_characters: int = _option(200_000, "Maximum number of characters in one text.")
    # a parser holds up everything else for some milliseconds for each mebibyte
    max_body_bytes: int = _option(4 * 2**20, "Maximum size of a request body.")
    max_total_body_bytes: int = _option(
        256 * 2**20,
        "Maximum size of the bodies of all requests in progress; a request whose body would exceed "
        "it gets 503.",
    )
    max_connections: int = _option(
        1_000,
        "Maximum number of connections; beyond it, only probes are answered, and other requests "
        "get 503.",
    )
    timeout_s: float = _option(60.0, "Seconds after which a request gets 504.")
    header_timeout_s: float = _option(
        10.0, "Seconds in which the head of a request must come; else it gets 408."
    )
    body_timeout_s: float = _option(
        20.0,
        "Seconds in which all of a body must come, else the request gets 408; and in which a "
        "client must take its response, else the connection is closed.",
    )
    # longer than the clients and proxies keep theirs: they close first, and never lose a request
    keep_alive_s: int = _option(75, "Seconds after which an idle connection is closed.")
    retry_after_s: int = _option(
        1,
        "Seconds in the Retry-After header of a 503, and of a 429 for which the engine has no "
        "estimate.",
    )
    root_path: str = _option(
        "",
        "Path below which a proxy shows this server, such as /search; the proxy may remove it from "
        "its requests, or leave it.",
    )

    def __post_init__(self) -> None:
        # their values stay out of the message
        if not isinstance(self.api_keys, tuple) or not all(map(is_key, self.api_keys)):
            raise ConfigurationError("api_keys must be a tuple of printable ASCII without spaces")
        are_names = isinstance(self.allowed_hosts, tuple) and all(map(_is_name, self.allowed_hosts))
        expected = "a tuple of host names without ports"
        require(are_names, "allowed_hosts", expected, self.allowed_hosts)
        are_origins = isinstance(self.cors_origins, tuple) and all(
            map(_is_origin, self.cors_origins)
        )
        expected = "a tuple of origins like 'https://app.example', or '*'"
        require(are_origins, "cors_origins", expected, self.cors_origins)
        counts = ("max_documents", "max_characters", "max_body_bytes", "max_total_body_bytes")
        for name in (*counts, "max_connections", "keep_alive_s", "retry_after_s"):
            value = getattr(self, name)
            require(is_int(value, 1), name, "an int of at least 1", value)
        is_path = re.fullmatch(r"(/[\w.~-]+)*", self.root_path, re.ASCII) is not None
        require(is_path, "root_path", "empty, or a path like '/search'", self.root_path)
        for name in ("timeout_s", "header_timeout_s", "body_timeout_s"):
            value = getattr(self, name)
            is_above_0 = is_finite(value) and value > 0
            require(is_above_0, name, "a finite number of seconds above 0", value)


def is_key(key: object) -> bool:
    """Whether a value can be an API key: it must fit into a header."""
    return isinstance(key, str) and all("!" <= character <= "~" for character in key) and key != ""


def _is_origin(origin: object) -> bool:
    pattern = r"\*|https?://[\w.-]+(:\d+)?"
    return isinstance(origin, str) and re.fullmatch(pattern, origin, re.ASCII) is not None


def _is_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[\w.-]+", name, re.ASCII) is not None


def read_api_keys(key: str | None = None, file: Path | None = None) -> tuple[str, ...]:
    """Read the keys that a server accepts, without white space around them.

    :param key: one key.
    :param file: a file with one key a line; empty lines are skipped.
    :returns: the keys that were given, else the one in ``BGE_RERANK_API_KEY``; none if that is not
        set either.
    :raises ConfigurationError: if both are given, if the file cannot be read, or if what is given
        or set holds no key: an empty key would start a server that anybody may use.
    """
    if key is not None and file is not None:
        raise ConfigurationError("give an API key or a file of API keys, not both")
    if file is not None:
        return _in_file(file)
    source = "the API key"
    if key is None:
        key, source = os.environ.get(API_KEY_VARIABLE), API_KEY_VARIABLE
    if key is None:
        return ()
    if not key.strip():
        raise ConfigurationError(f"{source} is empty; set a key, or unset {API_KEY_VARIABLE}")
    return (key.strip(),)


def _in_file(file: Path) -> tuple[str, ...]:
    try:
        # some editors write a byte order mark
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the API keys in {file} cannot be read: {error}") from error
    keys = tuple(line.strip() for line in lines if line.strip())
    for number, line in enumerate(lines, 1):
        # without the line itself: it may be a key
        if line.strip() and not is_key(line.strip()):
            raise ConfigurationError(
                f"{file}, line {number}: a key is printable ASCII without spaces; comments are not "
                "possible"
            )
    if not keys:
        raise ConfigurationError(f"{file} holds no API key; write one a line")
    return keys
