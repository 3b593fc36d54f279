"""Which values a setting takes: checked, converted, and read from text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args

from bge_rerank_integrations.errors import ConfigurationError

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
    """

    expected: str
    accepts: Callable[[Any], bool]
    read: Callable[[str], Any] = str
    convert: Callable[[Any], Any] = lambda value: value

    def or_none(self) -> SettingType:
        """The same kind, and None."""
        return SettingType(
            f"None or {self.expected}",
            lambda value: value is None or self.accepts(value),
            lambda text: None if text.lower() == "none" else self.read(text),
            lambda value: None if value is None else self.convert(value),
        )


def is_int(value: object, minimum: int) -> TypeGuard[int]:
    """Whether ``value`` is an int of at least ``minimum``, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a number or infinity, and neither a bool nor NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return not math.isnan(value)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number, and not a bool."""
    return is_number(value) and math.isfinite(value)


def require(holds: bool, name: str, expected: str, value: Any) -> None:
    """Check a setting.

    :raises ConfigurationError: unless it holds, with the setting's name and both values.
    """
    if not holds:
        raise ConfigurationError(f"{name} must be {expected}, got {value!r}")


def at_least(minimum: int) -> SettingType:
    """Ints from ``minimum`` on."""
    return SettingType(f"an int of at least {minimum}", lambda value: is_int(value, minimum), int)


def one_of(choices: Any) -> SettingType:
    """The values of a ``Literal``."""
    allowed = get_args(choices)
    return SettingType("one of " + ", ".join(map(repr, allowed)), lambda value: value in allowed)


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


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
    numbers = _several(value)
    numbers = numbers if isinstance(numbers, tuple) else (numbers,)
    return tuple(sorted(set(numbers))) if all(is_int(each, 1) for each in numbers) else value


TEXT = SettingType(
    "a non-empty string", lambda value: isinstance(value, str) and bool(value.strip())
)
PATH = SettingType("a non-empty string or a path", TEXT.accepts, convert=_path)
BOOL = SettingType(
    "a bool", lambda value: isinstance(value, bool), lambda text: _TRUTH[text.lower()]
)
TIMEOUT = SettingType("a number of seconds", is_number, float)
WAIT = SettingType(
    "a number of seconds, 0 or more", lambda value: is_number(value) and value >= 0, float
)
LAYERS = SettingType(
    "an int of at least 1, or several",
    lambda value: isinstance(value, tuple) and bool(value),
    lambda text: tuple(int(number) for number in text.split(",")),
    _layers,
)
RATIO = SettingType("1, 2, 4 or 8", lambda value: is_int(value, 1) and value in (1, 2, 4, 8), int)
DEVICES = SettingType(_DEVICE_NAMES, _are_devices, _read_devices, _devices)
