"""An engine's settings in one argument: ``tiny,max_length=256,dtype=float32``."""

from __future__ import annotations

import json
from dataclasses import fields

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.settings import EngineConfig

_SETTINGS = tuple(field.name for field in fields(EngineConfig) if field.name != "model")


def engine_config(text: str) -> EngineConfig:
    """Read a model's name and the settings after it.

    :param text: ``model,name=value,…``; a setting that takes several values may come repeatedly.
    :raises ConfigurationError: for what is no setting, or one that cannot work.
    """
    model, *given = text.split(",")
    settings: dict[str, list[object]] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not equals or name not in _SETTINGS:
            raise ConfigurationError(
                f"settings after a model must be name=value with one of {', '.join(_SETTINGS)}; "
                f"got {setting!r}"
            )
        settings.setdefault(name, []).append(_value(value))
    chosen = {name: each if len(each) > 1 else each[0] for name, each in settings.items()}
    return EngineConfig(model, **chosen)  # type: ignore[arg-type]  # EngineConfig checks each


def _value(text: str) -> object:
    """The number, truth value or null that ``text`` is in JSON; any other text is itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
