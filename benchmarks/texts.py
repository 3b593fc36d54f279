"""Real (query, passage) pairs: a collection's in BEIR layout, or Python's own reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from bge_rerank_integrations.cli.passages import python_reference

Pair = tuple[str, str]


def read_pairs(collections: Sequence[Path], count: int) -> list[Pair]:
    """Pairs of a query and a passage, evenly from all collections.

    :param collections: folders with ``corpus.jsonl`` and ``queries.jsonl``; none of them means the
        passages of Python's reference, asked about their own topics.
    """
    if not collections:
        # a stride, so that all lengths and topics come
        passages = python_reference()
        chosen = islice(passages, 0, None, max(len(passages) // count, 1))
        return [(f"How does {p.topic} work?", p.content) for p in islice(chosen, count)]
    sources = [_pairs_of(folder) for folder in collections]
    return list(islice((pair for pairs in zip(*sources, strict=False) for pair in pairs), count))


def _pairs_of(folder: Path) -> Iterator[Pair]:
    queries = _rows(folder / "queries.jsonl")
    for query, passage in zip(queries, _rows(folder / "corpus.jsonl"), strict=False):
        yield query["text"], f"{passage.get('title', '')} {passage['text']}".strip()


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
