"""Which names and values settings have: checked, converted, and read from text."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeGuard, get_args

from .errors import ConfigurationError

_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")
_DEVICE_NAMES = (
    "'auto', 'cpu', 'mps', 'xpu', 'cuda', 'cuda:N', or a list of devices other than 'auto'"
)
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class SettingType:
    """Which values a setting takes.

    :param expected: the values, in words.
    :param accepts: whether a value is one of them.
    :param read: text → value; raises ``ValueError`` or ``KeyError`` for text that is none.
    :param convert: applied to a value before it is checked.
    :param metavar: the type as a command line shows it.

    One rule for all: a bool is no number, a text is neither a number nor a bool, and a number or a
    bool of numpy's is what it is.
    """

    expected: str
    accepts: Callable[[Any], bool]
    read: Callable[[str], Any] = str
    convert: Callable[[Any], Any] = lambda value: plain(value)
    metavar: str = "TEXT"

    def or_none(self) -> SettingType:
        """The same kind, and None."""
        return SettingType(
            f"None or {self.expected}",
            lambda value: value is None or self.accepts(value),
            lambda text: None if text.lower() == "none" else self.read(text),
            lambda value: None if value is None else self.convert(value),
            self.metavar,
        )

    def checked(self, name: str, value: Any) -> Any:
        """A value in the form that it is kept in.

        :raises ConfigurationError: naming the setting, what was expected and what came.
        """
        value = self.convert(value)
        require(self.accepts(value), name, self.expected, value)
        return value


def plain(value: Any) -> Any:
    """A number, bool or text of numpy's as Python's own; anything else as it is."""
    numpy = sys.modules.get("numpy")  # where it is not loaded, nothing is of its types
    return value.item() if numpy is not None and isinstance(value, numpy.generic) else value


def as_float(value: Any) -> Any:
    """A number as a float, infinite where it is too large for one; anything else as it is."""
    value = plain(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def is_int(value: object, minimum: int) -> TypeGuard[int]:
    """Whether ``value`` is an int of at least ``minimum``, and not a bool."""
    number = plain(value)
    return isinstance(number, int) and not isinstance(number, bool) and number >= minimum


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a number or infinity, and neither a bool nor NaN."""
    number = as_float(value)
    return isinstance(number, float) and not math.isnan(number)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number, and not a bool."""
    return is_number(value) and math.isfinite(as_float(value))


def require(holds: bool, name: str, expected: str, value: Any) -> None:
    """Check a setting.

    :raises ConfigurationError: unless it holds, with the setting's name and both values.
    """
    if not holds:
        raise ConfigurationError(f"{name} must be {expected}, got {value!r}")


def at_least(minimum: int) -> SettingType:
    """Ints from ``minimum`` on."""
    return SettingType(
        f"an int of at least {minimum}",
        lambda value: is_int(value, minimum),
        int,
        metavar="INTEGER",
    )


def one_of(choices: Any) -> SettingType:
    """The values of a ``Literal``."""
    allowed = get_args(choices)
    return SettingType(
        "one of " + ", ".join(map(repr, allowed)),
        lambda value: isinstance(value, str) and value in allowed,
        metavar="|".join(allowed),
    )


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else plain(value)


def _devices(value: Any) -> Any:
    # None, as other packages say it
    return "auto" if value is None else _several(value)


def _several(value: Any) -> Any:
    # a tuple, so that a config given a list still hashes
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _are_devices(value: Any) -> bool:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, tuple) or not names:
        return False
    known = all(isinstance(name, str) and _DEVICE.fullmatch(name) for name in names)
    return known and (len(names) == 1 or "auto" not in names)


def _read_devices(text: str) -> str | tuple[str, ...]:
    names = tuple(text.split(","))
    return names[0] if len(names) == 1 else names


def _layers(value: Any) -> Any:
    """A number of layers, or several, as different numbers in ascending order."""
    several = _several(value)
    numbers = tuple(map(plain, several if isinstance(several, tuple) else (several,)))
    return tuple(sorted(set(numbers))) if all(is_int(each, 1) for each in numbers) else value


TEXT = SettingType(
    "a non-empty string", lambda value: isinstance(value, str) and bool(value.strip())
)
PATH = SettingType("a non-empty string or a path", TEXT.accepts, convert=_path, metavar="PATH")
BOOL = SettingType(
    "a bool",
    lambda value: isinstance(value, bool),
    lambda text: _TRUTH[text.lower()],
    metavar="true|false",
)
STRING = SettingType("a string", lambda value: isinstance(value, str))
TIMEOUT = SettingType("a number of seconds", is_number, float, as_float, "SECONDS")
WAIT = SettingType(
    "a number of seconds, 0 or more",
    lambda value: is_number(value) and value >= 0,
    float,
    as_float,
    "SECONDS",
)
FINITE = SettingType("a finite number", is_finite, float, as_float, "NUMBER")
SHARE = SettingType(
    "a number from 0 to 1",
    lambda value: is_number(value) and 0 <= value <= 1,
    float,
    as_float,
    "NUMBER",
)
LAYERS = SettingType(
    "an int of at least 1, or several",
    lambda value: isinstance(value, tuple) and bool(value),
    lambda text: tuple(int(number) for number in text.split(",")),
    _layers,
    "INTEGER,…",
)
RATIO = SettingType(
    "1, 2, 4 or 8",
    lambda value: is_int(value, 1) and value in (1, 2, 4, 8),
    int,
    metavar="1|2|4|8",
)
DEVICES = SettingType(_DEVICE_NAMES, _are_devices, _read_devices, _devices, "DEVICE,…")

_EACH_BY_NAME = "give each of its entries as a setting of its own, such as device= or dtype="
_NO_REMOTE_CODE = "leave it out: a checkpoint's own code is never run"

#: names in FlagEmbedding, sentence-transformers, rerankers and both frameworks' own rerankers
_INSTEAD = {
    "model_name": "use model",
    "model_name_or_path": "use model",
    "model_id": "use model",
    "top_k": "use top_n",
    "k": "use top_n",
    "threshold": "use score_threshold",
    "similarity_cutoff": "use score_threshold",
    "use_fp16": 'use dtype="float16", or "float32" for False',
    "use_bf16": 'use dtype="bfloat16", or "float32" for False',
    "fp16": 'use dtype="float16"',
    "torch_dtype": "use dtype",
    "devices": "use device, which takes a list too",
    "batch_size": "use max_batch_tokens: batches are filled by tokens",
    "max_tokens": "use max_length",
    "cache_dir": "use cache_folder",
    "cutoff_layer": "use cutoff_layers",
    "compress_layer": "use compress_layers",
    "activation_fn": "use normalize, and False for logits",
    "query_instruction_for_rerank": "use instruction",
    "prompt": "use instruction",
    "trust_remote_code": _NO_REMOTE_CODE,
    "model_kwargs": _EACH_BY_NAME,
    "tokenizer_kwargs": _EACH_BY_NAME,
    "processor_kwargs": _EACH_BY_NAME,
    "config_kwargs": _EACH_BY_NAME,
    "automodel_args": _EACH_BY_NAME,
    "cross_encoder_kwargs": _EACH_BY_NAME,
    "token": "log in to the hub, or set HF_TOKEN",
    "api_key": "give reranker=RemoteReranker(..., api_key=...)",
    "base_url": "give reranker=RemoteReranker(base_url)",
    "top_n": "give it to rerank(), or to an integration's BGERerank",
    "score_threshold": "give it to rerank(), or to an integration's BGERerank",
}


def reject_unknown_settings(given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a keyword argument that is no setting, with the setting that may be meant.

    :raises ConfigurationError: for the first name that is not known.
    """
    for name in given:
        if name not in known:
            raise ConfigurationError(f"{name} is not a setting here: {_instead(name, known)}")


def _instead(name: str, known: Collection[str]) -> str:
    if name in _INSTEAD:
        return _INSTEAD[name]
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
