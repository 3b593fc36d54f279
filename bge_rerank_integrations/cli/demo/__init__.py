"""``bge-rerank demo``: two-stage retrieval over text that every Python has."""
