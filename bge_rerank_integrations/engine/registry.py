"""Loaded models with their threads: one per config and process."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

from bge_rerank_integrations.calibration import Calibration, weights_digest
from bge_rerank_integrations.engine.loading.devices import release_memory
from bge_rerank_integrations.engine.loading.model import LoadedModel, load
from bge_rerank_integrations.engine.scheduling.scheduler import Scheduler
from bge_rerank_integrations.engine.scheduling.stats import EngineStats, State
from bge_rerank_integrations.errors import ModelLoadError, RerankError
from bge_rerank_integrations.settings import CallOptions, EngineConfig


class RunningModel:
    """Starts a model's threads; ends them when nothing refers to it any more.

    :param config: what was loaded.
    :param model: the loaded model.
    """

    def __init__(self, config: EngineConfig, model: LoadedModel) -> None:
        self.config = config
        self.tokenizer = model.tokenizer
        self.device = ",".join(map(str, model.devices))
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.layers = model.layers
        self.is_layerwise = model.is_layerwise
        self.activation = model.activation
        self._folder = model.folder
        self.scheduler = Scheduler(
            model.tokenizer,
            model.scorers,
            max_batch_tokens=model.max_batch_tokens,
            max_queued_pairs=config.max_queued_pairs,
            max_cached_scores=config.max_cached_scores,
            n_outputs=len(model.layers),
        )
        # also runs when the interpreter ends, so that no caller is left waiting then
        weakref.finalize(self, self.scheduler.close)

    @property
    def state(self) -> State:
        """Whether calls are answered."""
        # in a forked child the threads are missing, as after closing
        if self.scheduler.is_closed or not self.scheduler.is_of_this_process:
            return "closed"
        return "failed" if self.scheduler.failure is not None else "ready"

    def activation_of(self, options: CallOptions) -> str | Calibration:
        """What ``normalize`` makes of a logit in calls with these options.

        :raises ConfigurationError: if their calibration cannot be read, or is another model's.
        """
        if options.calibration is None:
            return self.activation
        calibration = Calibration.read(options.calibration)
        calibration.check_model(options.calibration, self.config.model, self.weights_digest)
        return calibration

    @cached_property
    def weights_digest(self) -> str:
        """Which weights these are, whatever the model's name."""
        return weights_digest(self._folder)

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        return EngineStats(
            state=self.state,
            model=self.config.model,
            device=self.device,
            dtype=self.dtype,
            queued_pairs=self.scheduler.queued_pairs,
            in_flight=self.scheduler.in_flight,
            cache_hits=self.tokenizer.cache.hits,
            cache_misses=self.tokenizer.cache.misses,
            score_cache_hits=self.scheduler.score_cache.hits,
            score_cache_misses=self.scheduler.score_cache.misses,
            **self.scheduler.counters.snapshot(),
        )

    def close(self) -> None:
        """Free the model's memory; callers that still wait get ``EngineClosedError``."""
        self.scheduler.close()
        release_memory()


def load_and_run(config: EngineConfig) -> RunningModel:
    """Load a model and start its threads.

    :raises ModelLoadError: if the model cannot be loaded, whatever another library raised.
    :raises ConfigurationError: if a setting does not fit this machine or model.
    """
    try:
        model = load(config)
    except RerankError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"{config.model} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return RunningModel(config, model)


@dataclass
class _Entry:
    """A shared model; the lock is held while it loads."""

    lock: Lock = field(default_factory=Lock)
    running: RunningModel | None = None


_entries: dict[EngineConfig, _Entry] = {}
_lock = Lock()


def shared(config: EngineConfig) -> RunningModel:
    """This process's model for a config: loaded at the first call, and after it has ended."""
    with _lock:
        entry = _entries.setdefault(config, _Entry())
    with entry.lock:
        if entry.running is None or entry.running.state != "ready":
            entry.running = load_and_run(config)
        return entry.running


def _renew_locks() -> None:
    """Replace the locks in a forked child: a thread of the parent may have held them.

    The parent's models stay listed; they do not run here, so the child loads its own.
    """
    global _lock
    _lock = Lock()
    for entry in _entries.values():
        entry.lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
