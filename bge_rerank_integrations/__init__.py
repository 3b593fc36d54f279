"""Rerank retrieved passages with BGE cross-encoders, in LlamaIndex and in LangChain.

Importing this package loads neither torch nor a framework: the engine comes with the first
use of ``RerankEngine``, the adapters with ``bge_rerank_integrations.llama_index`` and
``bge_rerank_integrations.langchain``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    ConfigurationError,
    DeadlineError,
    EngineClosedError,
    EngineFailedError,
    ForkedProcessError,
    InputError,
    MissingExtraError,
    ModelLoadError,
    NonFiniteScoreError,
    OverloadedError,
    RemoteError,
    RerankError,
    ScoringError,
    UnsupportedModelError,
)
from .ranking import RankedDocument, Ranking, Reranker, Scores, TokenUsage
from .settings import CallOptions, EngineConfig

if TYPE_CHECKING:
    from .engine.engine import RerankEngine
    from .remote import RemoteReranker

__version__ = "0.1.0"

__all__ = [
    "CallOptions",
    "ConfigurationError",
    "DeadlineError",
    "EngineClosedError",
    "EngineConfig",
    "EngineFailedError",
    "ForkedProcessError",
    "InputError",
    "MissingExtraError",
    "ModelLoadError",
    "NonFiniteScoreError",
    "OverloadedError",
    "RankedDocument",
    "Ranking",
    "RemoteError",
    "RemoteReranker",
    "RerankEngine",
    "RerankError",
    "Reranker",
    "Scores",
    "ScoringError",
    "TokenUsage",
    "UnsupportedModelError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "RerankEngine":
        from .engine.engine import RerankEngine

        return RerankEngine
    if name == "RemoteReranker":
        from .remote import RemoteReranker

        return RemoteReranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
