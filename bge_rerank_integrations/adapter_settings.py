"""The settings that both integrations show, declared once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import Self

from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.ranking import Reranker, check_selection
from bge_rerank_integrations.settings import DEFAULT_MODEL, Dtype, EngineConfig, LongDocuments

_ENGINE_SETTINGS = tuple(field.name for field in fields(EngineConfig))


class RerankSettings(BaseModel):
    """Fields of a reranking component: what to keep, and the engine (or reranker) behind it.

    The engine is the process-wide one for these settings (``RerankEngine.shared``), so components
    with equal settings share one set of weights. Its settings are frozen once it is made;
    ``top_n`` and ``score_threshold`` may be assigned at any time and are checked when they are.

    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", validate_assignment=True
    )

    top_n: int | None = Field(
        default=3, strict=True, description="How many documents to keep; None keeps all."
    )
    score_threshold: float | None = Field(
        default=None, description="Keep documents with score >= this, on the scale reported."
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
    cache_folder: str | None = Field(
        default=None, frozen=True, description="Where hub downloads are kept."
    )
    local_files_only: bool = Field(
        default=False, frozen=True, strict=True, description="Never reach for the network."
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

    @model_validator(mode="before")
    @classmethod
    def _adopt_engine_settings(cls, given: Any) -> Any:
        """Let a ready engine's settings show in the fields, and refuse contradictions."""
        if not isinstance(given, dict) or given.get("reranker") is None:
            return given
        reranker = given["reranker"]
        if not isinstance(reranker, Reranker):
            raise ConfigurationError(
                f"reranker must have model, rerank() and arerank(), got {type(reranker).__name__}"
            )
        config = getattr(reranker, "config", None)
        expected = config if isinstance(config, EngineConfig) else EngineConfig()
        for name in _ENGINE_SETTINGS:
            if name in given and given[name] != getattr(expected, name):
                raise ConfigurationError(
                    f"give either reranker= or engine settings, got both reranker= and {name}="
                )
        shown = {name: getattr(expected, name) for name in _ENGINE_SETTINGS}
        return {**shown, **given}

    @model_validator(mode="after")
    def _connect(self) -> Self:
        check_selection(self.top_n, self.score_threshold)
        # assignment runs validators again: the engine stays the one that was found first
        if getattr(self, "_reranker", None) is None:
            self._reranker = self._shared_engine() if self.reranker is None else self.reranker
        return self

    def _shared_engine(self) -> Reranker:
        from bge_rerank_integrations.engine.engine import RerankEngine

        return RerankEngine.shared(self.engine_config)

    @property
    def engine_config(self) -> EngineConfig:
        """The engine settings among the fields."""
        return EngineConfig(**{name: getattr(self, name) for name in _ENGINE_SETTINGS})
