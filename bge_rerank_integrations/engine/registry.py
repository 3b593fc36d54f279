"""The engines of this process, found by their settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from bge_rerank_integrations.settings import EngineConfig

if TYPE_CHECKING:
    from bge_rerank_integrations.engine.engine import RerankEngine


@dataclass
class _Place:
    """Where the engines on one model stand; its lock is held while the model loads."""

    lock: Lock = field(default_factory=Lock)
    engines: dict[EngineConfig, RerankEngine] = field(default_factory=dict)


_places: dict[EngineConfig, _Place] = {}
_lock = Lock()


def find_or_make(
    config: EngineConfig, make: Callable[[EngineConfig], RerankEngine]
) -> RerankEngine:
    """The engine for ``config``: made by whoever asks first; anew after it was closed or failed."""
    with _lock:
        place = _places.setdefault(replace(config, normalize=True), _Place())
    with place.lock:
        engines = {c: engine for c, engine in place.engines.items() if engine.is_alive}
        if config not in engines:
            other = next(iter(engines.values()), None)
            engines[config] = other.reporting(config.normalize) if other else make(config)
        place.engines = engines
        return engines[config]


def _renew_locks() -> None:
    """In a forked child: another thread of the parent may have held them for ever.

    The parent's engines stay listed; they are not alive here, so that the child makes its own.
    """
    global _lock
    _lock = Lock()
    for place in _places.values():
        place.lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
