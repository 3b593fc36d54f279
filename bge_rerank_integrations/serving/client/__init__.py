"""A reranker that runs elsewhere: another process, another machine, a hosted service."""

from bge_rerank_integrations.serving.client.dialects import DIALECTS
from bge_rerank_integrations.serving.client.remote import RemoteReranker

__all__ = ["DIALECTS", "RemoteReranker"]
