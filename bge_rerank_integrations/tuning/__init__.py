"""A reranker for a user's own documents: negatives, training without padding, before and after.

Needs the extra ``tune``.
"""

from .tune import Tuned, tune

__all__ = ["Tuned", "tune"]
