"""A reranker behind HTTP: a server of this package or a hosted service."""

from bge_rerank_integrations.remote.dialects import DIALECTS
from bge_rerank_integrations.remote.reranker import RemoteReranker

__all__ = ["DIALECTS", "RemoteReranker"]
