"""Collections with a list of candidates per query."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.jsonl import Place, json_objects, string


def read_candidate_lists(path: Path) -> Collection:
    """Read JSON Lines with ``query``, ``candidates`` (texts) and ``labels`` (whole numbers).

    A query's id is its number in the file, a candidate's that and its position. Lists whose
    candidates are all relevant, or all not, are left out: no order is better than another (the
    "clean" lists of Rao et al., CIKM 2016).

    :raises InputError: naming the file, and the line where one is wrong.
    """
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    relevance: dict[str, dict[str, int]] = {}
    left_out = 0
    for number, (place, given) in enumerate(json_objects(path), start=1):
        query = str(number)
        text = string(given, "query", place)
        candidates, labels = _judged(given, place)
        if len({label > 0 for label in labels}) < 2:
            left_out += 1
            continue
        queries[query] = text
        names = [f"{query}/{position}" for position in range(len(candidates))]
        documents.update(zip(names, candidates, strict=True))
        relevance[query] = dict(zip(names, labels, strict=True))
    if not queries:
        raise InputError(f"{path}: no list has both relevant candidates and others")
    note = f"{left_out} lists are all relevant or all not: left out"
    return Collection(
        name=f"{path.resolve().parent.name}/{path.stem}",
        queries=queries,
        documents=documents,
        relevance=relevance,
        lists={query: _shuffled(judged, query) for query, judged in relevance.items()},
        notes=(note,) if left_out else (),
    )


def _judged(given: dict[str, Any], place: Place) -> tuple[list[str], list[int]]:
    candidates, labels = given.get("candidates"), given.get("labels")
    if not (isinstance(candidates, list) and all(isinstance(text, str) for text in candidates)):
        raise InputError(f"{place}: 'candidates' must be a list of strings")
    if not (isinstance(labels, list) and all(isinstance(label, int) for label in labels)):
        raise InputError(f"{place}: 'labels' must be a list of whole numbers")
    if len(candidates) != len(labels):
        raise InputError(f"{place}: {len(candidates)} candidates have {len(labels)} labels")
    return candidates, labels


def _shuffled(names: Iterable[str], query: str) -> list[str]:
    # such files are often sorted by label, and ties keep the input order
    shuffled = list(names)
    random.Random(query).shuffle(shuffled)
    return shuffled
