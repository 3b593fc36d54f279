"""A reranker behind HTTP: a server of this package or a hosted service."""

from .dialects import DIALECTS
from .reranker import RemoteReranker

__all__ = ["DIALECTS", "RemoteReranker"]
