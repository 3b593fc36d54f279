"""Run files of other first stages, in TREC's format."""

from __future__ import annotations

import math
from pathlib import Path

from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.runs import DEPTH, Run, check_depth
from bge_rerank_integrations.jsonl import Place, read_lines


def read_run(path: Path, collection: Collection, depth: int = DEPTH) -> Run:
    """Read lines of query, Q0, document, rank, score and tag.

    As in trec_eval the score decides, not the rank; equal scores keep the order of the file.
    Queries that are not in the collection are skipped.

    :param depth: maximum number of documents per query.
    :raises ConfigurationError: for a depth below 1.
    :raises InputError: naming the file, and the line where one is wrong.
    """
    check_depth(depth)
    scores: dict[str, dict[str, float]] = {query: {} for query in collection.queries}
    for place, text in read_lines(path):
        query, document, score = _parse(text, place)
        if query not in scores:
            continue
        if document not in collection.documents:
            raise InputError(f"{place}: document {document!r} is not in the corpus")
        if document in scores[query]:
            raise InputError(f"{place}: document {document!r} was there before for {query!r}")
        scores[query][document] = score
    if not any(scores.values()):
        raise InputError(f"{path}: no line answers one of the collection's queries")
    return Run(path.name, {query: _best(found, depth) for query, found in scores.items()})


def _parse(text: str, place: Place) -> tuple[str, str, float]:
    fields = text.split()
    if len(fields) != 6:
        raise InputError(
            f"{place}: expected query, Q0, document, rank, score and tag, got {len(fields)} fields"
        )
    query, _, document, _, score, _ = fields
    return query, document, _number(score, place)


def _number(text: str, place: Place) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"{place}: score must be a number, got {text!r}")
    return number


def _best(found: dict[str, float], depth: int) -> list[str]:
    return sorted(found, key=found.__getitem__, reverse=True)[:depth]
