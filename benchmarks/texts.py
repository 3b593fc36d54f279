"""Real (query, passage) pairs: a collection's in BEIR layout, or Python's own reference.

Pairs of a given length are cut out of the reference by a tokenizer; no two are alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from tokenizers import Tokenizer

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


class CutTexts:
    """Queries and documents of as many tokens as are asked for; every one is new.

    :param tokenizer: what counts the tokens.
    """

    # golden ratio: lengths that follow each other differ, and all occur equally often
    _STEP = 0.618034
    # a prime, so that the beginnings go through the whole text
    _STRIDE = 7_919

    def __init__(self, tokenizer: Tokenizer) -> None:
        passages = python_reference()
        self._topics = [passage.topic for passage in passages]
        self._text = "\n".join(passage.content for passage in passages)
        self._offsets = tokenizer.encode(self._text, add_special_tokens=False).offsets
        self._numbers = count()

    def query(self) -> str:
        """A question of about ten tokens."""
        number = next(self._numbers)
        return f"How does {self._topics[number % len(self._topics)]} work in version {number}?"

    def documents(self, n: int, tokens: int, *, spread: float = 0.0) -> list[str]:
        """``n`` documents.

        :param tokens: of each, about.
        :param spread: by which share they may be shorter or longer, evenly.
        """
        return [self._document(tokens, spread) for _ in range(n)]

    def pairs(
        self, n: int, tokens: int, *, of_a_query: int = 50, spread: float = 0.5
    ) -> list[Pair]:
        """``n`` pairs, ``of_a_query`` with each query; the rest as for :meth:`documents`."""
        queries = [self.query() for _ in range(-(-n // of_a_query))]
        documents = self.documents(n, tokens, spread=spread)
        return [(queries[i // of_a_query], document) for i, document in enumerate(documents)]

    def _document(self, tokens: int, spread: float) -> str:
        number = next(self._numbers)
        length = max(1, round(tokens * (1 + spread * (2 * (number * self._STEP % 1) - 1))))
        start = number * self._STRIDE % (len(self._offsets) - length)
        begin, end = self._offsets[start][0], self._offsets[start + length - 1][1]
        return f"{number} {self._text[begin:end]}"
