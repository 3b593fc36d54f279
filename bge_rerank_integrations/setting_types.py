"""The types of settings, in every form that they may be given in, and the environment variables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
LongDocuments = Literal["truncate", "truncate_left", "window", "refuse"]
OnError = Literal["raise", "keep"]

API_KEY_VARIABLE = "BGE_RERANK_API_KEY"
"""The key that ``bge-rerank serve`` asks for and ``RemoteReranker`` sends to such a server."""

API_KEY_FILE_VARIABLE = "BGE_RERANK_API_KEY_FILE"
"""A file of keys that ``bge-rerank serve`` accepts, one a line."""

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
    max_queued_pairs: int


class CallOverrides(TypedDict, total=False):
    """The options of ``CallOptions``."""

    max_length: int | None
    query_max_length: int | None
    max_document_tokens: int | None
    long_documents: LongDocuments | None
    instruction: str | None
    normalize: bool
    calibration: str | None
    timeout_s: float | None
    queue_timeout_s: float
    max_wait_s: float | None


class EngineKeywords(ConfigKeywords, CallOverrides, total=False):
    """All settings of an engine but ``model``."""
