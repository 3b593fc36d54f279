"""Request, response and error bodies of rerank services; :mod:`routes` assigns their paths."""
