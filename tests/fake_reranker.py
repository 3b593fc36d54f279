"""A reranker without a model, for tests of what surrounds one."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import bge_rerank_integrations
from bge_rerank_integrations.highlighting import Highlighting
from bge_rerank_integrations.ranking import Ranking, Scores, TokenUsage, rank
from bge_rerank_integrations.settings import CallOptions, EngineConfig, split_settings


@dataclass(frozen=True)
class Call:
    """One call that the fake answered.

    :param method: ``"rerank"`` or ``"arerank"``.
    :param thread: the thread that called.
    """

    method: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None
    score_threshold: float | None
    thread: int


class FakeReranker(Highlighting):
    """Gives a document one point for each of its words that the query has, less two.

    :param error: raised by every call, instead of an answer.
    """

    def __init__(self, model: str = "fake", error: Exception | None = None) -> None:
        self.model = model
        self.error = error
        self.calls: list[Call] = []
        self.pair_calls: list[tuple[tuple[str, ...], ...]] = []
        self.scored: list[tuple[str, ...]] = []
        # how many of these came through ascore()
        self.ascored = 0

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        retrieval_weight: float = 0.0,
    ) -> Ranking:
        return self._answer("rerank", query, documents, top_n, score_threshold, retrieval_weight)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        await asyncio.sleep(0)
        return self._answer("arerank", query, documents, top_n, score_threshold)

    def score(self, query: str, documents: Iterable[str]) -> Scores:
        self.scored.append(tuple(documents))
        return self._scores([(query, document) for document in self.scored[-1]])

    async def ascore(self, query: str, documents: Iterable[str]) -> Scores:
        await asyncio.sleep(0)
        self.ascored += 1
        return self.score(query, documents)

    def score_pairs(self, pairs: Iterable[Sequence[str]]) -> Scores:
        given = tuple(tuple(pair) for pair in pairs)
        self.pair_calls.append(given)
        return self._scores(given)

    def _answer(
        self,
        method: str,
        query: str,
        documents: Sequence[str],
        top_n: int | None,
        score_threshold: float | None,
        retrieval_weight: float = 0.0,
    ) -> Ranking:
        thread = threading.get_ident()
        self.calls.append(Call(method, query, tuple(documents), top_n, score_threshold, thread))
        scores = self._scores([(query, document) for document in documents])
        return rank(scores, top_n, score_threshold, retrieval_weight)

    def _scores(self, pairs: Sequence[Sequence[str]]) -> Scores:
        if self.error is not None:
            raise self.error
        logits = [float(len(_words(query) & _words(document)) - 2) for query, document in pairs]
        return Scores.from_logits(
            logits, normalize=True, usage=TokenUsage(len(pairs)), model=self.model
        )


class FakeEngines:
    """Stands where the engine class is, and remembers what was asked for."""

    def __init__(self) -> None:
        self.reranker = FakeReranker()
        self.asked: tuple[EngineConfig, CallOptions] | None = None
        self.models: list[str] = []

    def shared(self, model: str, **settings: Any) -> FakeReranker:
        self.asked = split_settings(model, settings)
        self.models.append(model)
        return self.reranker

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> FakeEngines:
        """Put one where commands find the engine class."""
        engines = cls()
        monkeypatch.setattr(bge_rerank_integrations, "RerankEngine", engines, raising=False)
        return engines


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
