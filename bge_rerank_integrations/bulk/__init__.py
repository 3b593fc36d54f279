"""Scoring of whole files and datasets: rows in, the same rows with a score out."""

from bge_rerank_integrations.bulk.scoring import RerankBatch, score_file

__all__ = ["RerankBatch", "score_file"]
