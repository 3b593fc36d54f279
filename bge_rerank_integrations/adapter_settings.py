"""The settings that both integrations show, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)
from typing_extensions import Self

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.ranking import Reranker, check_selection
from bge_rerank_integrations.settings import (
    DEFAULT_MODEL,
    Dtype,
    EngineConfig,
    LongDocuments,
    layer_numbers,
)

_ENGINE_SETTINGS = tuple(field.name for field in fields(EngineConfig))


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

    model: str = Field(
        default=DEFAULT_MODEL,
        frozen=True,
        description="Hub id, folder, or 'tiny' for the built-in English model.",
    )
    revision: str | None = Field(
        default=None, frozen=True, description="Branch, tag or commit of a hub model."
    )
    device: str | tuple[str, ...] = Field(
        default="auto", frozen=True, description="'auto', one device, or several."
    )
    dtype: Dtype = Field(default="auto", frozen=True, description="Precision of the model.")
    max_length: int = Field(
        default=512, frozen=True, strict=True, description="Tokens of query and passage together."
    )
    query_max_length: int | None = Field(
        default=None, frozen=True, strict=True, description="Tokens of the query, at most."
    )
    max_batch_tokens: int | None = Field(
        default=None, frozen=True, strict=True, description="Tokens in one forward pass."
    )
    normalize: bool = Field(
        default=True, frozen=True, strict=True, description="Report sigmoid(logit), 0 to 1."
    )
    long_documents: LongDocuments = Field(
        default="truncate", frozen=True, description="'truncate', or 'window' to read all of it."
    )
    prompt: str | None = Field(
        default=None, frozen=True, description="Instruction to a decoder model."
    )
    cutoff_layers: tuple[int, ...] | None = Field(
        default=None, frozen=True, description="Score after this number of layers (layerwise)."
    )
    compress_ratio: int | None = Field(
        default=None, frozen=True, strict=True, description="Tokens that become one (lightweight)."
    )
    compress_layers: tuple[int, ...] | None = Field(
        default=None, frozen=True, description="Before which layers tokens become one."
    )
    cache_folder: str | None = Field(
        default=None, frozen=True, description="Where hub downloads are kept."
    )
    local_files_only: bool = Field(
        default=False, frozen=True, strict=True, description="Never reach for the network."
    )
    max_cached_tokens: int = Field(
        default=5_000_000,
        frozen=True,
        strict=True,
        description="Token ids to remember for texts that come again.",
    )
    max_queued_pairs: int = Field(
        default=100_000, frozen=True, strict=True, description="Pairs that may wait at one time."
    )
    queue_timeout_s: float = Field(
        default=0.0, frozen=True, description="Wait for a place in a full queue, in seconds."
    )
    reranker: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="A ready Reranker (engine, remote client, fake) instead of engine settings.",
    )

    _reranker: Reranker = PrivateAttr()

    @field_validator("cutoff_layers", "compress_layers", mode="before")
    @classmethod
    def _as_layer_numbers(cls, value: Any, info: ValidationInfo) -> tuple[int, ...] | None:
        return layer_numbers(str(info.field_name), value)

    def model_post_init(self, context: Any, /) -> None:
        """Find the engine, once: assigning to a field later does not come here."""
        super().model_post_init(context)
        if self.reranker is None:
            # not at the top: a component with a remote reranker must not load torch
            from bge_rerank_integrations.engine.engine import RerankEngine

            self._reranker = RerankEngine.shared(self.engine_config)
        else:
            self._adopt(self.reranker)

    def _adopt(self, reranker: Any) -> None:
        if not isinstance(reranker, Reranker):
            raise ConfigurationError(
                f"reranker must have model, rerank() and arerank(), got {type(reranker).__name__}"
            )
        config = getattr(reranker, "config", None)
        if isinstance(config, EngineConfig):
            shown = asdict(config)
        else:
            shown = {**asdict(EngineConfig()), "model": reranker.model}
        for name in self.model_fields_set & shown.keys():
            if getattr(self, name) != shown[name]:
                raise ConfigurationError(
                    f"give either reranker= or engine settings, got both reranker= and {name}="
                )
        self.__dict__.update(shown)
        self._reranker = reranker

    @property
    def engine_config(self) -> EngineConfig:
        """The engine settings among the fields."""
        return EngineConfig(**{name: getattr(self, name) for name in _ENGINE_SETTINGS})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # the copy asks the same reranker: copying it means more weights, or fails on its locks
        memo = {} if memo is None else memo
        memo[id(self._reranker)] = self._reranker
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


class RerankSettings(EngineSettings):
    """Fields of a reranking component: what to keep, and the engine (or reranker) behind it.

    ``top_n`` and ``score_threshold`` may be assigned at any time and are checked when they are.

    :raises pydantic.ValidationError: see :class:`EngineSettings`.
    :raises ModelLoadError: if the model cannot be loaded.
    """

    top_n: int | None = Field(
        default=3, strict=True, description="How many documents to keep; None keeps all."
    )
    score_threshold: float | None = Field(
        default=None, description="Keep documents with score >= this, on the scale reported."
    )

    # on the fields: after a check of the whole model fails, pydantic keeps the assigned value
    @field_validator("top_n")
    @classmethod
    def _check_top_n(cls, top_n: int | None) -> int | None:
        check_selection(top_n, None)
        return top_n

    @field_validator("score_threshold")
    @classmethod
    def _check_score_threshold(cls, score_threshold: float | None) -> float | None:
        check_selection(None, score_threshold)
        return score_threshold
