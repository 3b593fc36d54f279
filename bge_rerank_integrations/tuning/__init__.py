"""A reranker for a user's own documents: negatives, training without padding, before and after.

Needs the extra ``tune``.
"""

from bge_rerank_integrations.tuning.tune import Tuned, tune

__all__ = ["Tuned", "tune"]
