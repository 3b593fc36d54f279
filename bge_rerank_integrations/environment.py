"""Environment variables of this package."""

API_KEY_VARIABLE = "BGE_RERANK_API_KEY"
"""The key that ``bge-rerank serve`` asks for and ``RemoteReranker`` sends to such a server."""
