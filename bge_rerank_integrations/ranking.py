"""The one ordering rule, and what every reranker answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

from bge_rerank_integrations.errors import ConfigurationError, NonFiniteScoreError


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """One document's place in a ranking.

    :param index: position in the list that was reranked.
    :param score: relevance, on the scale that the reranker was asked for.
    """

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking(Sequence[RankedDocument]):
    """Documents, best first.

    :param documents: the kept documents.
    :param total_tokens: tokens that the model read for this call, special tokens included.
    :param model: the model that scored them.
    """

    documents: tuple[RankedDocument, ...] = ()
    total_tokens: int = 0
    model: str = ""

    @overload
    def __getitem__(self, position: int) -> RankedDocument: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[RankedDocument, ...]: ...
    def __getitem__(self, position: int | slice) -> RankedDocument | tuple[RankedDocument, ...]:
        return self.documents[position]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[RankedDocument]:
        return iter(self.documents)


@runtime_checkable
class Reranker(Protocol):
    """What the integrations need: an engine, a remote client or a test's fake."""

    @property
    def model(self) -> str:
        """Name of the model, for events and traces."""
        ...

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        """Rank ``documents`` by relevance to ``query``."""
        ...

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        ...


def check_selection(top_n: int | None, score_threshold: float | None) -> None:
    """Refuse a ``top_n`` or ``score_threshold`` that has no meaning.

    :raises ConfigurationError: if ``top_n`` is not None or an int of at least 1, or
        ``score_threshold`` is not None or a finite number.
    """
    if top_n is not None and (not _is_int(top_n) or top_n < 1):
        raise ConfigurationError(f"top_n must be None or an int of at least 1, got {top_n!r}")
    if score_threshold is not None and not _is_finite_number(score_threshold):
        raise ConfigurationError(
            f"score_threshold must be None or a finite number, got {score_threshold!r}"
        )


def sigmoid(logit: float) -> float:
    """Logistic function in float64: in float32, sigmoid(25.4) and sigmoid(26.2) are both 1.0."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def to_scores(logits: Sequence[float], *, normalize: bool) -> list[float]:
    """Turn logits into scores, in input order.

    :param normalize: apply the sigmoid.
    :raises NonFiniteScoreError: naming the first document whose logit is NaN or infinite.
    """
    for index, logit in enumerate(logits):
        if not math.isfinite(logit):
            raise NonFiniteScoreError(index, float(logit))
    return [sigmoid(logit) if normalize else float(logit) for logit in logits]


def rank(
    logits: Sequence[float],
    *,
    top_n: int | None = None,
    score_threshold: float | None = None,
    normalize: bool = True,
) -> tuple[RankedDocument, ...]:
    """Order documents by logit, best first; ties keep the input order.

    :param logits: one per document, in input order.
    :param top_n: how many to keep; None keeps all.
    :param score_threshold: keep ``score >= score_threshold``, on the scale reported.
    :param normalize: report sigmoid(logit) instead of the logit; the order is the logits'.
    :raises ConfigurationError: see :func:`check_selection`.
    :raises NonFiniteScoreError: if a logit is NaN or infinite.
    """
    check_selection(top_n, score_threshold)
    scores = to_scores(logits, normalize=normalize)
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    ranked = (RankedDocument(index, scores[index]) for index in order[:top_n])
    if score_threshold is None:
        return tuple(ranked)
    return tuple(document for document in ranked if document.score >= score_threshold)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
