"""The API keys of a server, from its options and its environment."""

from __future__ import annotations

import os
from pathlib import Path

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.serving.settings import is_key
from bge_rerank_integrations.setting_types import API_KEY_VARIABLE


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
