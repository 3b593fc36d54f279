"""Loaded models with their threads: one per config and process."""

from __future__ import annotations

import atexit
import os
import weakref
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock

from ..calibration import Calibration, weights_digest
from ..errors import (
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
    ModelLoadError,
    RerankError,
)
from ..settings import CallOptions, EngineConfig
from .loading.devices import dtype_times, release_memory, resolve_device
from .loading.model import LoadedModel, load
from .scheduling.job import Job
from .scheduling.scheduler import Scheduler
from .scheduling.stats import EngineStats, State
from .threads import check_fork, in_new_thread, join_threads, keep_spare_team, limit_threads


class RunningModel:
    """A loaded model and its threads, which end when nothing refers to it any more.

    In a forked child it starts threads of its own, on the weights that were loaded before.

    :param config: what was loaded.
    :param model: the loaded model.
    """

    def __init__(self, config: EngineConfig, model: LoadedModel) -> None:
        self.config = config
        # what may be asked for after the model was let go
        self.devices = model.devices
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._activation = model.activation
        self._folder = model.folder
        self._start(model)
        with _lock:
            _running.add(self)

    @property
    def model(self) -> LoadedModel:
        """What was loaded.

        :raises EngineClosedError: if it was closed.
        :raises EngineFailedError: if it has failed.
        """
        model, failure = self._scheduler.model, self._scheduler.failure
        if model is not None:
            return model
        if failure is None or self._scheduler.is_closed:
            raise EngineClosedError("the engine was closed")
        raise EngineFailedError(
            f"the engine failed and cannot go on: {type(failure).__name__}: {failure}"
        ) from failure

    @property
    def state(self) -> State:
        """Whether calls are answered."""
        if self._scheduler.is_closed:
            return "closed"
        if self._scheduler.failure is not None:
            return "failed"
        try:
            self._check_fork()
        except ForkedProcessError:
            return "closed"
        return "ready"

    def activation_of(self, options: CallOptions) -> str | Calibration:
        """What ``normalize`` makes of a logit in calls with these options.

        :raises ConfigurationError: if their calibration cannot be read, or is another model's.
        """
        if options.calibration is None:
            return self._activation
        calibration = Calibration.read(options.calibration)
        calibration.check_model(options.calibration, self.config.model, self.weights_digest)
        return calibration

    @cached_property
    def weights_digest(self) -> str:
        """Which weights these are, whatever the model's name."""
        return weights_digest(self._folder)

    def submit(self, job: Job) -> None:
        """Queue a job; see :meth:`Scheduler.submit`.

        :raises ForkedProcessError: in a forked child, if the model cannot run there.
        """
        if not self._scheduler.is_of_this_process:
            self._check_fork()
            with _fork_lock:
                if not self._scheduler.is_of_this_process:
                    self._start(self.model)
        self._scheduler.submit(job)

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        scheduler, model = self._scheduler, self._scheduler.model
        is_here = scheduler.is_of_this_process
        return EngineStats(
            state=self.state,
            model=self.config.model,
            device=",".join(map(str, self.devices)),
            dtype=self.dtype,
            lost_devices=scheduler.lost_devices,
            loaded_models=tuple(each.config for each in _all() if each.state == "ready"),
            queued_pairs=scheduler.queue.queued_pairs if is_here else 0,
            in_flight=scheduler.queue.in_flight if is_here else 0,
            cache_hits=0 if model is None else model.tokenizer.cache.hits,
            cache_misses=0 if model is None else model.tokenizer.cache.misses,
            **scheduler.counters.snapshot(),
            dtype_times=dtype_times(self.config.dtype, self.devices[0]),
        )

    def close(self) -> None:
        """Free the model's memory; callers that still wait get ``EngineClosedError``."""
        self._scheduler.close()
        release_memory()

    def _check_fork(self) -> None:
        if not self._scheduler.is_of_this_process:
            check_fork(self.devices, is_inherited=True)

    def _start(self, model: LoadedModel) -> None:
        self._scheduler = Scheduler(model, self.config.max_queued_pairs)
        # not at the interpreter's end: _end waits for the threads then
        weakref.finalize(self, self._scheduler.close).atexit = False


def load_and_run(config: EngineConfig) -> RunningModel:
    """Load a model and start its threads.

    :raises ModelLoadError: if the model cannot be loaded, whatever another library raised.
    :raises ConfigurationError: if a setting does not fit this machine or model.
    :raises ForkedProcessError: in a forked child, if nothing can be computed there.
    """
    try:
        model = in_new_thread(partial(_load, config))
    except RerankError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"{config.model} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return RunningModel(config, model)


def _load(config: EngineConfig) -> LoadedModel:
    check_fork(map(resolve_device, config.devices))
    limit_threads()
    keep_spare_team()
    return load(config)


@dataclass
class _Entry:
    """A shared model; the lock is held while it loads."""

    lock: Lock = field(default_factory=Lock)
    running: RunningModel | None = None


_entries: dict[EngineConfig, _Entry] = {}
_running: weakref.WeakSet[RunningModel] = weakref.WeakSet()
_lock = Lock()
# held while an inherited model starts its threads
_fork_lock = Lock()


def shared(config: EngineConfig) -> RunningModel:
    """This process's model for a config: loaded at the first call, and after it has ended."""
    with _lock:
        entry = _entries.setdefault(config, _Entry())
    with entry.lock:
        if entry.running is None or entry.running.state != "ready":
            entry.running = load_and_run(config)
        return entry.running


def close_all() -> None:
    """Close every model of this process."""
    for running in _all():
        running.close()


def _all() -> list[RunningModel]:
    with _lock:
        return list(_running)


def _end() -> None:
    """Leave no caller waiting, and no thread in native code, when the interpreter ends."""
    close_all()
    join_threads()


def _renew_locks() -> None:
    """Replace the locks in a forked child: a thread of the parent may have held them."""
    global _lock, _fork_lock
    _lock, _fork_lock = Lock(), Lock()
    for entry in _entries.values():
        entry.lock = Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
