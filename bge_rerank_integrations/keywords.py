"""The types of settings as keyword arguments, in every form that they may be given in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias, TypedDict

from bge_rerank_integrations.settings import Dtype, LongDocuments

#: what ``model`` and ``cache_folder`` take
PathOrName: TypeAlias = str | os.PathLike[str]


class ConfigKeywords(TypedDict, total=False):
    """The settings of ``EngineConfig`` but ``model``."""

    revision: str | None
    recipe: str | None
    device: str | Sequence[str] | None
    dtype: Dtype
    cutoff_layers: int | Sequence[int] | None
    compress_ratio: int | None
    compress_layers: int | Sequence[int] | None
    cache_folder: PathOrName | None
    local_files_only: bool
    max_batch_tokens: int | None
    max_cached_tokens: int
    max_cached_scores: int
    max_queued_pairs: int


class CallOverrides(TypedDict, total=False):
    """The options of ``CallOptions``."""

    max_length: int | None
    query_max_length: int | None
    max_document_tokens: int | None
    long_documents: LongDocuments
    instruction: str | None
    normalize: bool
    calibration: str | None
    timeout_s: float | None
    queue_timeout_s: float
    max_wait_s: float | None


class EngineKeywords(ConfigKeywords, CallOverrides, total=False):
    """All settings of an engine but ``model``."""
