"""The declared settings as pydantic fields of both integrations, and the reranker behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from .checks import BOOL, reject_unknown_settings
from .context.options import ContextOptions
from .context.selection import Kept
from .errors import ConfigurationError
from .pair_reranker import as_reranker
from .pipeline import Pipeline
from .ranking import Reranker, score_range
from .setting_types import Dtype, LongDocuments, OnError, PathOrName
from .settings import SETTINGS, CallOptions, EngineConfig, default_of, description_of

_GROUPS = (EngineConfig, CallOptions, ContextOptions)
_DECLARED = {each.name: each for group in _GROUPS for each in fields(group)}
CONTEXT = tuple(each.name for each in fields(ContextOptions))


def _declared(name: str) -> Any:
    """A declared setting as a field; those of an engine are frozen."""
    each = _DECLARED[name]
    description = each.metadata["description"]
    # a function cannot be written down
    is_function = name == "count_tokens"
    return Field(
        default=each.default, frozen=name in SETTINGS, description=description, exclude=is_function
    )


class _Default(str):
    """A default that is told from an equal value that was given."""


_MODEL = _Default(default_of("model"))


class EngineFields(BaseModel):
    """Fields of a component that holds an engine: the engine's settings, or a ready reranker.

    The engine is the process-wide one for these settings (``RerankEngine.shared``), so components
    with equal settings share one set of weights, and so do a component's copies; one that was
    closed or has failed is found again by the next call. The settings are frozen. With
    ``reranker=``, an engine's own settings are shown in the fields; of any other its model's name.

    :raises pydantic.ValidationError: for a setting that cannot work, or that contradicts the
        ``reranker`` given (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded; with ``lazy``, by the first call.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", validate_assignment=True
    )

    # a field specifier by name: type checkers read that it may be positional
    model: PathOrName = Field(
        default=default_of("model"),
        frozen=True,
        kw_only=False,
        description=description_of("model"),
    )
    revision: str | None = _declared("revision")
    recipe: str | None = _declared("recipe")
    device: str | Sequence[str] | None = _declared("device")
    dtype: Dtype = _declared("dtype")
    cutoff_layers: int | Sequence[int] | None = _declared("cutoff_layers")
    compress_ratio: int | None = _declared("compress_ratio")
    compress_layers: int | Sequence[int] | None = _declared("compress_layers")
    cache_folder: PathOrName | None = _declared("cache_folder")
    local_files_only: bool = _declared("local_files_only")
    max_batch_tokens: int | None = _declared("max_batch_tokens")
    max_cached_tokens: int = _declared("max_cached_tokens")
    max_queued_pairs: int = _declared("max_queued_pairs")
    max_length: int | None = _declared("max_length")
    query_max_length: int | None = _declared("query_max_length")
    max_document_tokens: int | None = _declared("max_document_tokens")
    long_documents: LongDocuments | None = _declared("long_documents")
    instruction: str | None = _declared("instruction")
    normalize: bool = _declared("normalize")
    calibration: str | None = _declared("calibration")
    timeout_s: float | None = _declared("timeout_s")
    queue_timeout_s: float = _declared("queue_timeout_s")
    max_wait_s: float | None = _declared("max_wait_s")
    lazy: bool = Field(
        default=False, frozen=True, description="Load the model at the first call, and not before."
    )
    reranker: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="A ready reranker instead of engine settings: an engine, a remote client, "
        "another package's cross-encoder.",
    )

    _found: Reranker | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:  # type checkers make one of the fields

        def __init__(self, model: Any = _MODEL, **settings: Any) -> None:
            if not isinstance(model, _Default):
                settings["model"] = model
            super().__init__(**settings)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            reject_unknown_settings(given, cls.model_fields)
        return given

    @field_validator(
        *SETTINGS, *CONTEXT, "lazy", "keep_retrieval_score", mode="before", check_fields=False
    )
    @classmethod
    def _check_setting(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        if name == "model" and (hasattr(value, "rerank") or hasattr(value, "score")):
            got = f"got {type(value).__name__}: give it as reranker="
            raise ConfigurationError(f"model must be a name or a folder, {got}")
        declared = _DECLARED.get(name)
        type_of = BOOL if declared is None else declared.metadata["type"]
        return type_of.checked(name, value)

    def model_post_init(self, context: Any, /) -> None:
        """Find the engine, once: assigning to a field later does not come here."""
        super().model_post_init(context)
        if self.reranker is not None:
            self._adopt(self.reranker)
        elif not self.lazy:
            self._find()

    def _find(self) -> Reranker:
        """The reranker of a call; loads the model where that is due."""
        found = self._found
        if not self._is_found:
            # not at the top: a component with a remote reranker must not load torch
            from .engine.engine import RerankEngine

            self._found = found = RerankEngine.shared(**{it: getattr(self, it) for it in SETTINGS})
        assert found is not None
        if self.reranker is not None:
            # a remote client may learn its model's name
            self.__dict__["model"] = found.model
        return found

    async def _afind(self) -> Reranker:
        """Find like :meth:`_find`, without blocking the event loop."""
        return self._find() if self._is_found else await asyncio.to_thread(self._find)

    @property
    def _is_found(self) -> bool:
        engine: Any = self._found
        return engine is not None and (self.reranker is not None or engine.is_alive)

    @property
    def engine_config(self) -> EngineConfig:
        """What is loaded, and where, among the fields."""
        return EngineConfig(**{it.name: getattr(self, it.name) for it in fields(EngineConfig)})

    def _adopt(self, reranker: Any) -> None:
        """Take a ready reranker, and show its settings in the fields."""
        # of another component its reranker: as a LangChain cross-encoder it reports scores alone
        reranker = reranker._find() if isinstance(reranker, EngineFields) else reranker
        reranker = as_reranker(reranker)
        shown = {name: _DECLARED[name].default for name in SETTINGS} | {"model": reranker.model}
        compared = self.model_fields_set & shown.keys()
        for settings in (getattr(reranker, "config", None), getattr(reranker, "options", None)):
            if isinstance(settings, (EngineConfig, CallOptions)):
                shown |= asdict(settings)
            elif settings is None:
                # a remote client's model may have had another name when this was written down
                compared -= {"model"}
        for name in compared:
            if getattr(self, name) != shown[name]:
                raise ConfigurationError(
                    f"give either reranker= or engine settings, got both reranker= and {name}="
                )
        # past the frozen fields: what is shown here is the reranker's own
        self.__dict__.update(shown)
        self._found = reranker

    def __setattr__(self, name: str, value: Any) -> None:
        declared = type(self).model_fields.get(name)
        if declared is not None and declared.frozen:
            message = f"{name} is frozen: make a copy with model_copy(update={{{name!r}: ...}})"
            error = PydanticCustomError("frozen_field", message)
            details = InitErrorDetails(type=error, loc=(name,), input=value)
            raise ValidationError.from_exception_data(type(self).__name__, [details])
        before = self.__dict__.get(name)
        try:
            super().__setattr__(name, value)
        except ValidationError:
            # after a check of the whole model fails, pydantic keeps the assigned value
            self.__dict__ |= {name: before} if name in self.__dict__ else {}
            raise

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # the copy asks the same reranker: copying it means more weights, or fails on its locks
        memo = {} if memo is None else memo
        memo |= {id(shared): shared for shared in (self._found, self.reranker)}
        return super().__deepcopy__(memo)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy this component; the copy shares its engine.

        :param update: settings to change; they are checked, and find their own engine.
        :param deep: copy the values of the fields too (never the engine).
        :raises pydantic.ValidationError: for an update that cannot work.
        """
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        # pydantic's own update would show the new model's name over the old model's weights
        given = {name: getattr(copied, name) for name in copied.model_fields_set}
        return type(self)(**{**given, **update})


class RerankFields(EngineFields):
    """Fields of a component that reranks: those of its engine, and what it keeps.

    What it keeps may be assigned, and is checked then; a call takes it as it is when it begins.
    Errors are those of :class:`EngineFields`.
    """

    top_n: int | None = _declared("top_n")
    score_threshold: float | None = _declared("score_threshold")
    retrieval_weight: float = _declared("retrieval_weight")
    per_source: int | None = _declared("per_source")
    max_context_tokens: int | None = _declared("max_context_tokens")
    count_tokens: Callable[[str], int] | None = _declared("count_tokens")
    prune: float | None = _declared("prune")
    prune_share: float | None = _declared("prune_share")
    prune_mark: str = _declared("prune_mark")
    drop_duplicates: bool | float | None = _declared("drop_duplicates")
    show_progress: bool = _declared("show_progress")
    on_error: OnError = _declared("on_error")

    keep_retrieval_score: bool = Field(
        default=False,
        description="Keep what the retriever said in metadata['retrieval_score'] and, from 1, in "
        "metadata['retrieval_rank'].",
    )

    _depth_setting: ClassVar[str]
    _log_told: set[str] = PrivateAttr(default_factory=set)

    @model_validator(mode="after")
    def _check_context(self) -> Self:
        if self._found is not None:
            Pipeline(self._found, self._options)
        elif not self.normalize:
            self._options.check_scale(score_range("Identity"))
        return self

    @property
    def _options(self) -> ContextOptions:
        return ContextOptions(**{name: getattr(self, name) for name in CONTEXT})

    def _pipeline(self) -> Pipeline:
        """What answers one call."""
        options = self._options
        return Pipeline(self._find(), options, self._log_told, self._depth_setting)

    async def _apipeline(self) -> Pipeline:
        options = self._options
        return Pipeline(await self._afind(), options, self._log_told, self._depth_setting)

    def _told(self, kept: Kept, metadata: Mapping[str, Any], score: Any) -> dict[str, Any]:
        """What the metadata of a kept document tell beside its score.

        :param metadata: that it came with.
        :param score: the retriever's.
        """
        told: dict[str, Any] = {}
        if self.keep_retrieval_score:
            told |= {"retrieval_score": score, "retrieval_rank": kept.index + 1}
        if kept.is_truncated or "truncated" in metadata:
            told["truncated"] = kept.is_truncated
        return told


def sync_override(component: Any, method: Any, async_method: Any) -> Any:
    """The method of a subclass that overrides only the sync one of two, and so means both."""
    for cls in type(component).__mro__:
        own = vars(cls).get(method.__name__)
        if own is method:
            break
        if own is not None and async_method.__name__ not in vars(cls):
            return own.__get__(component)
    return None
