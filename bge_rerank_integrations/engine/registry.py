"""The engines of this process, found by their settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from bge_rerank_integrations.settings import EngineConfig

if TYPE_CHECKING:
    from bge_rerank_integrations.engine.engine import RerankEngine


@dataclass
class _Place:
    """Where one configuration's engine stands; its lock is held while the model loads."""

    lock: Lock = field(default_factory=Lock)
    engine: RerankEngine | None = None


_places: dict[EngineConfig, _Place] = {}
_lock = Lock()


def find_or_make(
    config: EngineConfig, make: Callable[[EngineConfig], RerankEngine]
) -> RerankEngine:
    """The engine for ``config``: made by whoever asks first; anew after it was closed or failed."""
    with _lock:
        place = _places.setdefault(config, _Place())
    with place.lock:
        if place.engine is None or not place.engine.is_alive:
            place.engine = make(config)
        return place.engine


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
