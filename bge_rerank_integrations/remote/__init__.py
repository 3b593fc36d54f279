"""A reranker that runs elsewhere: another process, another machine, a hosted service."""

from bge_rerank_integrations.remote.dialects import DIALECTS
from bge_rerank_integrations.remote.reranker import RemoteReranker

__all__ = ["DIALECTS", "RemoteReranker"]
