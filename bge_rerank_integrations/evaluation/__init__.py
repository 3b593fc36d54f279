"""Measure the quality and the cost of rerankers on queries with judged documents.

::

    from pathlib import Path
    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.evaluation import bm25, read_beir, rerank, summarize

    collection = read_beir(Path("scifact"))
    first_stage = bm25(collection, depth=100)
    reranked = rerank("tiny", RerankEngine.shared("tiny"), collection, first_stage)
    report = summarize(collection, [first_stage, reranked], top_n=[3, 10])

Functions raise ``MissingExtraError`` without the extra ``eval``.
"""

from .collection import (
    Collection,
    CorpusPassage,
    read_beir,
    read_candidate_lists,
    text_only,
    titled,
)
from .measures import Comparison, compare, means, measure
from .report import Report, System, summarize
from .runs import Run, blend, bm25, fuse, read_run, rerank

__all__ = [
    "Collection",
    "Comparison",
    "CorpusPassage",
    "Report",
    "Run",
    "System",
    "blend",
    "bm25",
    "compare",
    "fuse",
    "means",
    "measure",
    "read_beir",
    "read_candidate_lists",
    "read_run",
    "rerank",
    "summarize",
    "text_only",
    "titled",
]
