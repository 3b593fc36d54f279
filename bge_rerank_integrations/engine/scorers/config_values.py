"""Numbers and switches of a ``config.json``; a value that cannot be one is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def read_size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A positive integer.

    :param default: what transformers takes where the file says nothing; None if it must say it.
    :raises ValueError: if it is anything else.
    """
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {name} must be a positive integer, got {value!r:.80}")
    return value


def read_positive(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A positive, finite number; parameters as in :func:`read_size`.

    :raises ValueError: if it is anything else.
    """
    value = config.get(name, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise ValueError(f"config.json: {name} must be a positive number, got {value!r:.80}")
    return float(value)


def read_switch(config: Mapping[str, Any], name: str) -> bool:
    """A boolean, false where the file says nothing.

    :raises ValueError: if it is anything else.
    """
    value = config.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {name} must be true or false, got {value!r:.80}")
    return value


def read_heads(config: Mapping[str, Any], hidden_size: int, default: int) -> int:
    """``num_attention_heads``, which must divide the hidden size.

    :raises ValueError: if it does not.
    """
    heads = read_size(config, "num_attention_heads", default)
    if hidden_size % heads:
        raise ValueError(
            f"config.json: hidden_size {hidden_size} is no multiple of num_attention_heads {heads}"
        )
    return heads
