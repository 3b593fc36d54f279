"""A reranker without a model, for tests of what surrounds one."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from bge_rerank_integrations.ranking import Ranking, rank


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


class FakeReranker:
    """Gives a document one point for each of its words that the query has, less two.

    :param error: raised by every call, instead of an answer.
    """

    def __init__(self, model: str = "fake", error: Exception | None = None) -> None:
        self.model = model
        self.error = error
        self.calls: list[Call] = []

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        return self._answer("rerank", query, documents, top_n, score_threshold)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        await asyncio.sleep(0)
        return self._answer("arerank", query, documents, top_n, score_threshold)

    def _answer(
        self,
        method: str,
        query: str,
        documents: Sequence[str],
        top_n: int | None,
        score_threshold: float | None,
    ) -> Ranking:
        thread = threading.get_ident()
        self.calls.append(Call(method, query, tuple(documents), top_n, score_threshold, thread))
        if self.error is not None:
            raise self.error
        asked = _words(query)
        logits = [float(len(asked & _words(document)) - 2) for document in documents]
        ranked = rank(logits, top_n=top_n, score_threshold=score_threshold)
        return Ranking(ranked, total_tokens=len(documents), model=self.model)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
