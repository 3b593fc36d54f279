"""Queries, documents and relevance judgments."""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from bge_rerank_integrations.errors import ConfigurationError

Relevance = Mapping[str, Mapping[str, int]]
"""Query id → document id → grade; above 0 is relevant."""


@dataclass(frozen=True)
class Collection:
    """Queries with judged documents.

    :param name: its name in reports.
    :param queries: query id → text; every one has a relevant document.
    :param documents: document id → text that is searched and reranked.
    :param relevance: grades of the queries' documents, and of no other query's.
    :param lists: query id → ids of its candidates in random order, for a collection with a list
        per query; None for a corpus that is searched.
    :param notes: what was left out in reading, for the report.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevance: Relevance
    lists: Mapping[str, Sequence[str]] | None = None
    notes: tuple[str, ...] = ()

    def sample(self, max_queries: int) -> Collection:
        """Draw at most ``max_queries`` queries at random, with a fixed seed.

        :raises ConfigurationError: for fewer than 1.
        """
        if max_queries < 1:
            raise ConfigurationError(f"max_queries must be at least 1, got {max_queries}")
        if max_queries >= len(self.queries):
            return self
        # not the first: collections are often sorted by subject
        drawn = set(random.Random(0).sample(list(self.queries), max_queries))
        note = f"a sample of {max_queries} of {len(self.queries)} queries"
        return replace(self.only(drawn), notes=(*self.notes, note))

    def only(self, queries: Container[str]) -> Collection:
        """Keep these queries, in their order, and all documents."""
        return replace(
            self,
            queries={query: text for query, text in self.queries.items() if query in queries},
            relevance={q: grades for q, grades in self.relevance.items() if q in queries},
        )
