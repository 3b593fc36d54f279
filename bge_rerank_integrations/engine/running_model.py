"""A loaded model with its threads, for all engines that report its scores."""

from __future__ import annotations

import weakref

from bge_rerank_integrations.engine.loading.devices import release_memory
from bge_rerank_integrations.engine.loading.model import LoadedModel, load
from bge_rerank_integrations.engine.scheduling.scheduler import Scheduler
from bge_rerank_integrations.engine.scheduling.stats import EngineStats, State
from bge_rerank_integrations.errors import ModelLoadError, RerankError
from bge_rerank_integrations.settings import EngineConfig


class RunningModel:
    """Starts a model's threads; ends them when nothing refers to it any more.

    :param config: the settings.
    :param model: what they name, loaded.
    """

    def __init__(self, config: EngineConfig, model: LoadedModel) -> None:
        self.tokenizer = model.tokenizer
        self.device = ",".join(map(str, model.devices))
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.max_length = model.max_length
        self.layers = model.layers if model.is_layerwise else ()
        self.scheduler = Scheduler(
            model.tokenizer,
            model.scorers,
            max_batch_tokens=model.max_batch_tokens,
            max_queued_pairs=config.max_queued_pairs,
            layers=len(model.layers),
        )
        self._name = config.model
        # also runs when the interpreter ends, so that no caller is left waiting then
        weakref.finalize(self, self.scheduler.close)

    @property
    def state(self) -> State:
        """Whether calls are answered."""
        # in a forked child the engine cannot run any more, as after closing it
        if self.scheduler.is_closed or not self.scheduler.is_of_this_process:
            return "closed"
        return "failed" if self.scheduler.failure is not None else "ready"

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        return EngineStats(
            state=self.state,
            model=self._name,
            device=self.device,
            dtype=self.dtype,
            queued_pairs=self.scheduler.queued_pairs,
            in_flight=self.scheduler.in_flight,
            cache_hits=self.tokenizer.texts.hits,
            cache_misses=self.tokenizer.texts.misses,
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
