"""A model and its settings in one argument: ``tiny,max_length=256,dtype=float32``."""

from __future__ import annotations

from typing import Any

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.settings import SETTINGS, read_setting, split_settings


def model_settings(text: str) -> tuple[str, dict[str, Any]]:
    """Read a model's name and the settings after it.

    :param text: ``model,name=value,…``; a setting that takes several values may come repeatedly.
    :raises ConfigurationError: for a name that is not a setting, or a value that cannot work.
    """
    model, *given = text.split(",")
    values: dict[str, list[str]] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not equals or name not in SETTINGS or name == "model":
            raise ConfigurationError(
                f"settings after a model must be name=value with one of {', '.join(SETTINGS[1:])}; "
                f"got {setting!r}"
            )
        values.setdefault(name, []).append(value)
    settings = {name: read_setting(name, ",".join(several)) for name, several in values.items()}
    # a mistake is told now, and not when the models before it have run
    split_settings(model, settings)
    return model, settings
