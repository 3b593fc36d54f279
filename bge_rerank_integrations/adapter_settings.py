"""The settings of an engine as both integrations show them, and the engine that they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.pair_reranker import as_reranker
from bge_rerank_integrations.ranking import Reranker
from bge_rerank_integrations.setting_names import reject_unknown_settings
from bge_rerank_integrations.setting_types import Dtype, LongDocuments, PathOrName
from bge_rerank_integrations.settings import (
    SETTINGS,
    CallOptions,
    EngineConfig,
    checked,
    default_of,
    description_of,
)


def _setting(name: str) -> Any:
    """A declared setting as a field: frozen once the engine is made."""
    return Field(default=default_of(name), frozen=True, description=description_of(name))


class _Default(str):
    """A default that is told from an equal value that was given."""


_MODEL = _Default(default_of("model"))


class EngineSettings(BaseModel):
    """Fields of a component that holds an engine: the engine's settings, or a ready reranker.

    The engine is the process-wide one for these settings (``RerankEngine.shared``), so components
    with equal settings share one set of weights, and so do a component's copies. The settings are
    frozen once the engine is made. With ``reranker=``, an engine's own settings are shown in the
    fields; of any other reranker the model's name is.

    :raises pydantic.ValidationError: for a setting that cannot work, or that contradicts the
        ``reranker`` given (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
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
    revision: str | None = _setting("revision")
    recipe: str | None = _setting("recipe")
    device: str | Sequence[str] | None = _setting("device")
    dtype: Dtype = _setting("dtype")
    cutoff_layers: int | Sequence[int] | None = _setting("cutoff_layers")
    compress_ratio: int | None = _setting("compress_ratio")
    compress_layers: int | Sequence[int] | None = _setting("compress_layers")
    cache_folder: PathOrName | None = _setting("cache_folder")
    local_files_only: bool = _setting("local_files_only")
    max_batch_tokens: int | None = _setting("max_batch_tokens")
    max_cached_tokens: int = _setting("max_cached_tokens")
    max_queued_pairs: int = _setting("max_queued_pairs")
    max_length: int | None = _setting("max_length")
    query_max_length: int | None = _setting("query_max_length")
    max_document_tokens: int | None = _setting("max_document_tokens")
    long_documents: LongDocuments = _setting("long_documents")
    instruction: str | None = _setting("instruction")
    normalize: bool = _setting("normalize")
    calibration: str | None = _setting("calibration")
    timeout_s: float | None = _setting("timeout_s")
    queue_timeout_s: float = _setting("queue_timeout_s")
    max_wait_s: float | None = _setting("max_wait_s")
    reranker: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="A ready reranker instead of engine settings: an engine, a remote client, "
        "another package's cross-encoder.",
    )

    _reranker: Reranker = PrivateAttr()

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

    @field_validator(*SETTINGS, mode="before")
    @classmethod
    def _check_setting(cls, value: Any, info: ValidationInfo) -> Any:
        return checked(str(info.field_name), value)

    def model_post_init(self, context: Any, /) -> None:
        """Find the engine, once: assigning to a field later does not come here."""
        super().model_post_init(context)
        if self.reranker is None:
            # not at the top: a component with a remote reranker must not load torch
            from bge_rerank_integrations.engine.engine import RerankEngine

            self._reranker = RerankEngine.shared(self.engine_config, **self._call_options)
        else:
            self._adopt(self.reranker)

    @property
    def engine_config(self) -> EngineConfig:
        """What is loaded, and where, among the fields."""
        return EngineConfig(
            **{each.name: getattr(self, each.name) for each in fields(EngineConfig)}
        )

    @property
    def _call_options(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(CallOptions)}

    def _adopt(self, reranker: Any) -> None:
        """Take a ready reranker, and show its settings in the fields."""
        # of another component its reranker: as a LangChain cross-encoder it reports scores alone
        reranker = reranker._reranker if isinstance(reranker, EngineSettings) else reranker
        reranker = as_reranker(reranker)
        shown = {name: default_of(name) for name in SETTINGS} | {"model": reranker.model}
        for settings in (getattr(reranker, "config", None), getattr(reranker, "options", None)):
            if isinstance(settings, (EngineConfig, CallOptions)):
                shown |= asdict(settings)
        for name in self.model_fields_set & shown.keys():
            if getattr(self, name) != shown[name]:
                raise ConfigurationError(
                    f"give either reranker= or engine settings, got both reranker= and {name}="
                )
        # past the frozen fields: what is shown here is the reranker's own
        self.__dict__.update(shown)
        self._reranker = reranker

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # the copy asks the same reranker: copying it means more weights, or fails on its locks
        memo = {} if memo is None else memo
        memo |= {id(shared): shared for shared in (self._reranker, self.reranker)}
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
