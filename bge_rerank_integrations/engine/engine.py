"""RerankEngine: texts in, scores out; one model, one queue, any number of callers."""

from __future__ import annotations

from asyncio import wrap_future
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from typing_extensions import Self, Unpack

from ..errors import ConfigurationError
from ..highlighting import Highlighting
from ..inputs import check_pairs, query_pairs
from ..ranking import Ranking, Scores, TokenUsage, check_selection, rank, score_range
from ..setting_types import CallOverrides, EngineKeywords, PathOrName
from ..settings import DEFAULT_MODEL, CallOptions, EngineConfig, overridden, split_settings
from . import registry
from .loading.model import LoadedModel
from .pair_stream import PairStream
from .registry import RunningModel
from .scheduling.job import Job, wait
from .scheduling.stats import EngineStats
from .tokenization.pairs import TextPair


class RerankEngine(Highlighting):
    """Scores (query, document) pairs with a cross-encoder: a handle on a loaded model.

    May be called from any thread and any event loop; calls that come together are scored together.
    The ``a…`` methods hold no thread while they wait, and leave the queue when they are cancelled.

    Every scoring method takes the options of :class:`CallOptions` as keyword arguments, in place of
    the engine's own, and raises:

    * ``InputError`` for a query or document that is not a string or not valid Unicode;
    * ``ConfigurationError`` for an invalid option, or one that does not fit the model;
    * ``ScoringError`` if the model fails on one of the documents, or answers NaN;
    * ``OverloadedError``, ``DeadlineError``, ``EngineClosedError``, ``EngineFailedError``,
      ``ForkedProcessError`` as their names say.

    :param model: a model's name, a folder's path, or a whole config.
    :param settings: the other settings of :class:`EngineConfig`, where ``model`` is a name, and
        options of :class:`CallOptions` for all calls.
    :raises ModelLoadError: if the model cannot be loaded.
    :raises ConfigurationError: for an invalid setting, or one that this machine or model lacks.
    """

    def __init__(
        self, model: PathOrName | EngineConfig = DEFAULT_MODEL, **settings: Unpack[EngineKeywords]
    ) -> None:
        config, options = split_settings(model, settings)
        self._attach(registry.load_and_run(config), options)

    @classmethod
    def shared(
        cls, model: PathOrName | EngineConfig = DEFAULT_MODEL, **settings: Unpack[EngineKeywords]
    ) -> Self:
        """An engine on this process's model for these settings, loaded at the first call.

        Engines with equal configs share the model, its threads and its statistics, whatever their
        options, and are closed together. Parameters and errors are the constructor's.
        """
        config, options = split_settings(model, settings)
        return cls._on(registry.shared(config), options)

    @classmethod
    def on(cls, model: LoadedModel, config: EngineConfig, **options: Unpack[CallOverrides]) -> Self:
        """An engine on a model that is loaded already; ``config`` says how to run it."""
        return cls._on(RunningModel(config, model), overridden(CallOptions(), options))

    def with_options(self, **options: Unpack[CallOverrides]) -> Self:
        """Another engine on the same model, whose calls have these options by default."""
        return self._on(self._running, overridden(self.options, options))

    @property
    def config(self) -> EngineConfig:
        """What is loaded, and where."""
        return self._running.config

    @property
    def options(self) -> CallOptions:
        """How calls are scored, unless they say otherwise."""
        return self._options

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.config.model

    @property
    def device(self) -> str:
        """Where the model runs; several devices with commas between."""
        return ",".join(map(str, self._running.devices))

    @property
    def dtype(self) -> str:
        """Precision of the weights, e.g. ``"bfloat16"``."""
        return self._running.dtype

    @property
    def weights_digest(self) -> str:
        """Which weights these are, whatever the model's name: what a calibration is fitted to."""
        return self._running.weights_digest

    @property
    def max_length(self) -> int:
        """Tokens of a pair, at most: the option, within the model's own limit."""
        return self._running.model.tokenizer.max_length(self.options)

    @property
    def score_range(self) -> tuple[float, float]:
        """The least and the greatest score that calls with these options report."""
        return score_range(self._running.activation_of(self._options), self._options.normalize)

    @property
    def is_alive(self) -> bool:
        """Whether the engine answers calls: not closed, not failed, not the parent process's."""
        return self._running.state == "ready"

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        retrieval_weight: float = 0.0,
        **options: Unpack[CallOverrides],
    ) -> Ranking:
        """Rank documents by relevance to the query, best first.

        :param top_n: how many to keep; None keeps all.
        :param score_threshold: keep ``score >= score_threshold``.
        :param retrieval_weight: above 0, blend with the order that the documents are given in.
        :returns: the kept documents; empty if there are none.
        :raises ConfigurationError: for a ``top_n`` below 1.
        """
        check_selection(top_n, score_threshold, retrieval_weight)
        scores = self.score(query, documents, **options)
        return rank(scores, top_n, score_threshold, retrieval_weight)

    async def arerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        retrieval_weight: float = 0.0,
        **options: Unpack[CallOverrides],
    ) -> Ranking:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        check_selection(top_n, score_threshold, retrieval_weight)
        scores = await self.ascore(query, documents, **options)
        return rank(scores, top_n, score_threshold, retrieval_weight)

    def score(
        self, query: str, documents: Iterable[str], **options: Unpack[CallOverrides]
    ) -> Scores:
        """Score documents against the query.

        :returns: one score a document, in input order.
        """
        asked = self._asked(options)
        job = self._submit(query_pairs(query, documents), asked)
        result = wait(job.future)
        return self._scores(result.deepest, result.usage, asked)

    async def ascore(
        self, query: str, documents: Iterable[str], **options: Unpack[CallOverrides]
    ) -> Scores:
        """Score like :meth:`score`, without blocking the event loop."""
        asked = self._asked(options)
        job = self._submit(query_pairs(query, documents), asked)
        result = await wrap_future(job.future)
        return self._scores(result.deepest, result.usage, asked)

    def score_pairs(
        self,
        pairs: Iterable[Sequence[str]],
        show_progress: bool = False,
        **options: Unpack[CallOverrides],
    ) -> Scores:
        """Score (query, document) pairs; any number of them, read as they are needed.

        :param show_progress: show a progress bar on standard error.
        :returns: one score a pair, in input order.
        """
        asked = self._asked(options)
        with self._stream(pairs, asked, show_progress) as stream:
            while (future := stream.next_future()) is not None:
                stream.add(wait(future))
        return self._scores(stream.logits, stream.usage, asked)

    async def ascore_pairs(
        self,
        pairs: Iterable[Sequence[str]],
        show_progress: bool = False,
        **options: Unpack[CallOverrides],
    ) -> Scores:
        """Score like :meth:`score_pairs`, without blocking the event loop."""
        asked = self._asked(options)
        with self._stream(pairs, asked, show_progress) as stream:
            while (future := stream.next_future()) is not None:
                stream.add(await wrap_future(future))
        return self._scores(stream.logits, stream.usage, asked)

    def score_layers(
        self, pairs: Iterable[Sequence[str]], **options: Unpack[CallOverrides]
    ) -> dict[int, Scores]:
        """Score pairs after each of ``cutoff_layers``; for layerwise and lightweight models.

        Layers are not comparable: each has a scale of its own, and none is calibrated.

        :returns: for each number of layers, one score a pair in input order.
        :raises ConfigurationError: for a model that scores after its last layer only.
        """
        if not self._running.model.is_layerwise:
            raise ConfigurationError(
                f"score_layers needs a layerwise or lightweight model, got {self.model}"
            )
        asked = overridden(self._asked(options), {"calibration": None})
        result = wait(self._submit(check_pairs(pairs), asked).future)
        return {
            layer: self._scores(result.logits[:, column].tolist(), result.usage, asked)
            for column, layer in enumerate(self._running.model.layers)
        }

    def count_tokens(self, text: str) -> int:
        """The number of a text's tokens, without special ones."""
        return len(self._running.model.tokenizer.ids(text))

    def stats(self) -> EngineStats:
        """Queue, work done and state, now."""
        return self._running.stats()

    def close(self) -> None:
        """Free the model's memory; callers that still wait get ``EngineClosedError``."""
        self._running.close()

    @staticmethod
    def close_all() -> None:
        """Close every engine of this process; :attr:`EngineStats.loaded_models` lists them."""
        registry.close_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        """Whether both are on the same model and score alike."""
        return (
            isinstance(other, RerankEngine)
            and self._running is other._running
            and self._options == other._options
        )

    def __hash__(self) -> int:
        return hash((id(self._running), self._options))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # frameworks copy components freely; a second set of weights is never meant
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self).shared, self.config, **asdict(self.options)), ()

    def __repr__(self) -> str:
        return f"RerankEngine({self.model!r}, {self.device}, {self.dtype}, {self._running.state})"

    @classmethod
    def _on(cls, running: RunningModel, options: CallOptions) -> Self:
        engine = object.__new__(cls)
        engine._attach(running, options)
        return engine

    def _attach(self, running: RunningModel, options: CallOptions) -> None:
        # now, so that an option that does not fit the model is refused here
        running.model.tokenizer.layout(options)
        running.activation_of(options)
        self._running = running
        self._options = options

    def _asked(self, overrides: CallOverrides) -> CallOptions:
        return overridden(self._options, overrides) if overrides else self._options

    def _submit(self, pairs: Sequence[TextPair], options: CallOptions, first_index: int = 0) -> Job:
        model = self._running.model
        layout = model.tokenizer.layout(options)
        job = Job(pairs, layout, len(model.layers), options, first_index)
        self._running.submit(job)
        return job

    def _stream(
        self, pairs: Iterable[Sequence[str]], options: CallOptions, show_progress: bool
    ) -> PairStream:
        most = self.config.max_queued_pairs
        return PairStream(pairs, self._submit, options, most, show_progress)

    def _scores(self, logits: list[float], usage: TokenUsage, options: CallOptions) -> Scores:
        activation = self._running.activation_of(options)
        return Scores.from_logits(logits, options.normalize, activation, usage, self.model)
