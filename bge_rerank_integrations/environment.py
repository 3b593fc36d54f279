"""Environment variables of this package."""

API_KEY_VARIABLE = "BGE_RERANK_API_KEY"
"""The key that ``bge-rerank serve`` asks for and ``RemoteReranker`` sends to such a server."""

API_KEY_FILE_VARIABLE = "BGE_RERANK_API_KEY_FILE"
"""A file of keys that ``bge-rerank serve`` accepts, one a line."""
