"""Rankings of every query by a system: BM25, or a reranker after it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from ..errors import ConfigurationError, InputError, MissingExtraError
from ..jsonl import read_lines
from ..ranking import RANK_OFFSET, Reranker, blend_ranks
from .collection import Collection
from .first_stage import BM25Index

DEPTH = 100
# Anserini's, which BEIR's published baselines use
K1, B = 0.9, 0.4
# Cormack, Clarke and Büttcher's
FUSION_OFFSET = 60


@dataclass(frozen=True)
class Run:
    """A system's rankings.

    :param name: its name in reports.
    :param order: query id → document ids, best first.
    :param seconds: query id → seconds of its ranking; empty if not measured.
    :param pairs: (query, document) pairs that a model scored.
    :param tokens: tokens that it read for them.
    :param scores: query id → scores of the documents in ``order``; a reranker's only.
    :param truncated: pairs whose document the model did not read to its end.
    """

    name: str
    order: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    pairs: int = 0
    tokens: int = 0
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    truncated: int = 0


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
    pairs = tokens = truncated = 0
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
        truncated += ranking.usage.truncated_documents
    return Run(name, order, seconds, pairs, tokens, scores, truncated)


def read_run(path: Path, collection: Collection, depth: int = DEPTH) -> Run:
    """Read a first stage's run file in TREC's format: query, Q0, document, rank, score and tag.

    As in trec_eval the score decides, not the rank; equal scores keep the order of the file.
    Queries that are not in the collection are skipped.

    :param depth: maximum number of documents per query.
    :raises ConfigurationError: for a depth below 1.
    :raises InputError: naming the file, and the line where one is wrong.
    :raises MissingExtraError: if ir-measures is not installed.
    """
    check_depth(depth)
    try:
        from ir_measures import read_trec_run
    except ImportError as error:
        raise MissingExtraError("eval") from error
    scores: dict[str, dict[str, float]] = {query: {} for query in collection.queries}
    for place, text in read_lines(path):
        try:
            # line by line: the library's errors do not name the line
            (line,) = read_trec_run(f"{text}\n")  # type: ignore[no-untyped-call]
            if math.isnan(line.score):
                raise ValueError
        except ValueError:
            expected = "query, Q0, document, rank, score (a number) and tag"
            raise InputError(f"{place}: expected {expected}, got {text!r}") from None
        if line.query_id not in scores:
            continue
        if line.doc_id not in collection.documents:
            raise InputError(f"{place}: document {line.doc_id!r} is not in the corpus")
        found = scores[line.query_id]
        if line.doc_id in found:
            raise InputError(
                f"{place}: document {line.doc_id!r} was there before for {line.query_id!r}"
            )
        found[line.doc_id] = line.score
    if not any(scores.values()):
        raise InputError(f"{path}: no line answers one of the collection's queries")
    order = {
        query: sorted(found, key=found.__getitem__, reverse=True)[:depth]
        for query, found in scores.items()
    }
    return Run(path.name, order)


def fuse(runs: Sequence[Run], depth: int = DEPTH) -> Run:
    """Fuse first stages by reciprocal ranks (Cormack, Clarke and Büttcher, SIGIR 2009; k = 60).

    :param depth: maximum number of documents per query.
    """
    order = {}
    for query in runs[0].order:
        fused: dict[str, float] = {}
        for run in runs:
            for rank, document in enumerate(run.order.get(query, ()), 1):
                fused[document] = fused.get(document, 0.0) + 1 / (FUSION_OFFSET + rank)
        order[query] = sorted(fused, key=fused.__getitem__, reverse=True)[:depth]
    return Run(f"RRF of {' and '.join(run.name for run in runs)}", order)


def blend(run: Run, first_stage: Run, retrieval_weight: float, offset: int = RANK_OFFSET) -> Run:
    """What a reranker's run becomes with ``retrieval_weight``, without scoring again."""
    order = {}
    for query, reranked in run.order.items():
        retrieved = first_stage.order[query]
        place_of = {document: place for place, document in enumerate(retrieved)}
        places = [place_of[document] for document in reranked]
        blended = blend_ranks(places, retrieval_weight, offset)
        order[query] = [retrieved[place] for place in blended]
    return replace(run, name=f"{run.name}, blended", order=order, scores={})


def at_depth(run: Run, first_stage: Run, depth: int) -> Run:
    """What a reranker's run would be over the first ``depth`` candidates, without scoring again."""
    order = {}
    for query, reranked in run.order.items():
        candidates = set(first_stage.order[query][:depth])
        order[query] = [document for document in reranked if document in candidates]
    return Run(run.name, order)


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
