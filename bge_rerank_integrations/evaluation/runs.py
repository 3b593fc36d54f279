"""Rankings of every query by a system: BM25, or a reranker after it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from bge_rerank_integrations.errors import ConfigurationError, InputError
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.first_stage import BM25Index
from bge_rerank_integrations.ranking import Reranker

DEPTH = 100
# Anserini's, which BEIR's published baselines use
K1, B = 0.9, 0.4


@dataclass(frozen=True)
class Run:
    """A system's rankings.

    :param name: its name in reports.
    :param order: query id → document ids, best first.
    :param seconds: query id → seconds of its ranking; empty if not measured.
    :param pairs: (query, document) pairs that a model scored.
    :param tokens: tokens that it read for them.
    :param scores: query id → scores of the documents in ``order``; a reranker's only.
    """

    name: str
    order: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    pairs: int = 0
    tokens: int = 0
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)


def bm25(collection: Collection, depth: int = DEPTH, *, show_progress: bool = False) -> Run:
    """Search the collection's documents with BM25 (k1 = 0.9, b = 0.4, English stemmer).

    Candidate lists are sorted by BM25 and kept whole: candidates that share no word with the
    query come last.

    :param depth: maximum number of documents per query; not applied to candidate lists.
    :param show_progress: show a progress bar on standard error.
    :raises ConfigurationError: for a depth below 1.
    :raises MissingExtraError: if bm25s or PyStemmer is not installed.
    """
    check_depth(depth)
    names = list(collection.documents)
    index = BM25Index(list(collection.documents.values()), k1=K1, b=B, stemmed=True)
    order, seconds = {}, {}
    for query, text in _progress(collection, "BM25", show_progress):
        started = time.perf_counter()
        hits = index.search(text, depth if collection.lists is None else len(names))
        seconds[query] = time.perf_counter() - started
        found = [names[hit.index] for hit in hits]
        order[query] = (
            found if collection.lists is None else _within(collection.lists[query], found)
        )
    return Run("BM25", order, seconds)


def rerank(
    name: str,
    reranker: Reranker,
    collection: Collection,
    first_stage: Run,
    *,
    show_progress: bool = False,
) -> Run:
    """Rerank every query's candidates, one query at a time, as an application would.

    :param name: its name in reports.
    :param first_stage: the candidates.
    :param show_progress: show a progress bar on standard error.
    :raises InputError: naming the query or document that cannot be scored.
    :raises RerankError: for any other error of the reranker.
    """
    order, scores, seconds = {}, {}, {}
    pairs = tokens = 0
    # warm-up: the first pass compiles kernels, which is not part of a query's time
    reranker.rerank("query", ["document"])
    for query, text in _progress(collection, name, show_progress):
        candidates = first_stage.order[query]
        started = time.perf_counter()
        try:
            ranking = reranker.rerank(text, [collection.documents[one] for one in candidates])
        except InputError as error:
            what = f"query {query!r}" if error.index is None else repr(candidates[error.index])
            raise InputError(f"{collection.name}: {what}: {error}", error.index) from error
        seconds[query] = time.perf_counter() - started
        order[query] = [candidates[ranked.index] for ranked in ranking]
        scores[query] = [ranked.score for ranked in ranking]
        pairs += len(candidates)
        tokens += ranking.total_tokens
    return Run(name, order, seconds, pairs, tokens, scores)


def check_depth(depth: int) -> None:
    """Check a depth.

    :raises ConfigurationError: if it is below 1.
    """
    if depth < 1:
        raise ConfigurationError(f"depth must be at least 1, got {depth}")


def _within(candidates: Sequence[str], found: Sequence[str]) -> list[str]:
    ranks = {document: rank for rank, document in enumerate(found)}
    return sorted(candidates, key=lambda document: ranks.get(document, len(found)))


def _progress(collection: Collection, name: str, show: bool) -> tqdm[tuple[str, str]]:
    return tqdm(collection.queries.items(), desc=name, unit="query", disable=not show)
