"""The one ordering rule, and what every reranker answers."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload, runtime_checkable

from .checks import FINITE, SHARE, at_least, is_number, plain
from .errors import NonFiniteScoreError, ScoringError

logger = logging.getLogger(__name__)

#: ``k`` of :func:`blend_ranks`. The paper has 60; training/first_stages.py measures 5, 10 and 60.
RANK_OFFSET = 10


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What the model read of a call's texts.

    A text is truncated if the model did not read it to its end; a document in windows is whole.

    :param total_tokens: tokens read, special tokens included; equal pairs are read once, and pairs
        whose scores are remembered are not read.
    :param pair_tokens: tokens of each pair in input order, of all its windows, those of remembered
        ones too; empty where a service does not say.
    :param truncated: indices of the truncated documents; empty where a service does not say.
    :param truncated_documents: how many documents were truncated, as far as it is known.
    :param query_truncated: whether a query was truncated.
    """

    total_tokens: int = 0
    pair_tokens: Sequence[int] = ()
    truncated: Sequence[int] = ()
    truncated_documents: int = 0
    query_truncated: bool = False

    @classmethod
    def joined(cls, parts: Iterable[TokenUsage]) -> TokenUsage:
        """The usage of a call that was made in parts, one after another."""
        parts = list(parts)
        pair_tokens, truncated = array("i"), []
        for part in parts:
            truncated += [len(pair_tokens) + index for index in part.truncated]
            pair_tokens.extend(part.pair_tokens)
        return cls(
            sum(part.total_tokens for part in parts),
            pair_tokens,
            truncated,
            sum(part.truncated_documents for part in parts),
            any(part.query_truncated for part in parts),
        )


class Scores(list[float]):
    """Scores of a call's documents (or pairs) in input order, on the scale that was asked for.

    :param scores: one a document.
    :param logits: what the model said of each document, before its activation: scores of 1.0 may
        hide different logits, so rankings are made from these.
    :param usage: tokens that the model read for this call, and what it did not read.
    :param model: the model that scored them.
    :param are_probabilities: whether they are from 0 to 1 by the scale that was asked for.
    """

    def __init__(
        self,
        scores: Iterable[float] = (),
        logits: Sequence[float] = (),
        usage: TokenUsage = TokenUsage(),
        model: str = "",
        are_probabilities: bool = False,
    ) -> None:
        super().__init__(scores)
        self.logits = logits
        self.usage = usage
        self.model = model
        self.are_probabilities = are_probabilities

    @property
    def total_tokens(self) -> int:
        """Tokens that the model read for this call, special tokens included."""
        return self.usage.total_tokens

    @classmethod
    def from_logits(
        cls,
        logits: Sequence[float],
        normalize: bool,
        activation: str | Callable[[float], float] = "Sigmoid",
        usage: TokenUsage = TokenUsage(),
        model: str = "",
    ) -> Scores:
        """Report logits, or what the model's activation makes of them.

        :param activation: one of ``SCORE_ACTIVATIONS``, or a function that keeps the order.
        :raises NonFiniteScoreError: naming the first document whose logit is NaN or infinite.
        """
        for index, logit in enumerate(logits):
            if not math.isfinite(logit):
                raise NonFiniteScoreError(index, float(logit))
        # a function is a calibration
        are_probabilities = normalize and activation not in ("Identity", "Tanh")
        if isinstance(activation, str):
            activation = SCORE_ACTIVATIONS[activation]
        scores = map(activation if normalize else float, logits)
        return cls(scores, logits, usage, model, are_probabilities)


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
    :param usage: tokens that the model read for this call, and what it did not read; its indices
        are those of the documents given.
    :param model: the model that scored them.
    """

    documents: tuple[RankedDocument, ...] = ()
    usage: TokenUsage = TokenUsage()
    model: str = ""

    @property
    def total_tokens(self) -> int:
        """Tokens that the model read for this call, special tokens included."""
        return self.usage.total_tokens

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


@runtime_checkable
class PairScorer(Protocol):
    """What scores pairs: an engine, a remote client or a test's fake."""

    def score_pairs(self, pairs: Iterable[Sequence[str]]) -> Sequence[float]:
        """Score (query, document) pairs, in input order."""
        ...


_TOP_N, _SCORE_THRESHOLD = at_least(1).or_none(), FINITE.or_none()


def check_selection(
    top_n: int | None, score_threshold: float | None, retrieval_weight: float = 0.0
) -> tuple[int | None, float | None]:
    """Check what a caller wants to keep.

    :returns: ``top_n`` and ``score_threshold``, as Python's own numbers.
    :raises ConfigurationError: if ``top_n`` is not None or an int of at least 1,
        ``score_threshold`` is not None or a finite number, or the weight is not from 0 to 1.
    """
    SHARE.checked("retrieval_weight", retrieval_weight)
    return (
        _TOP_N.checked("top_n", top_n),
        _SCORE_THRESHOLD.checked("score_threshold", score_threshold),
    )


def check_scores(scores: Iterable[Any], count: int, model: str) -> list[float]:
    """Check what another package's model answered.

    :param count: of the pairs that it was asked to score.
    :param model: its name, for messages.
    :raises ScoringError: for another number of scores, or for one that is no number.
    :raises NonFiniteScoreError: for one that is NaN or infinite. Both name its index.
    """
    checked = []
    for index, score in enumerate(scores):
        # a tensor's element as a number; numpy's are taken anyway
        number = plain(score.item() if getattr(score, "shape", None) == () else score)
        if not isinstance(number, float) and not is_number(number):
            raise ScoringError(
                f"the score of document {index} must be a number, {model} gave {score!r:.80}", index
            )
        if not math.isfinite(number):
            raise NonFiniteScoreError(index, float(number))
        checked.append(float(number))
    if len(checked) != count:
        raise ScoringError(f"{model} gave {len(checked)} scores for {count} pairs")
    return checked


def rank(
    scores: Scores,
    top_n: int | None = None,
    score_threshold: float | None = None,
    retrieval_weight: float = 0.0,
    *,
    ties: Sequence[int] | None = None,
) -> Ranking:
    """Order documents by logit, best first.

    :param scores: one per document, in input order.
    :param top_n: how many to keep; None keeps all.
    :param score_threshold: keep ``score >= score_threshold``, on the scale reported.
    :param retrieval_weight: above 0, blend with the input order: see :func:`blend_ranks`.
    :param ties: the order of documents with equal logits, as indices; None keeps the input order.
    :raises ConfigurationError: see :func:`check_selection`.
    """
    weight = SHARE.checked("retrieval_weight", retrieval_weight)
    top_n, score_threshold = check_selection(top_n, score_threshold)
    usage = scores.usage
    if usage.truncated_documents:
        logger.debug("%d of %d documents truncated", usage.truncated_documents, len(scores))
    order = sorted(
        range(len(scores)) if ties is None else ties, key=lambda index: -scores.logits[index]
    )
    kept = (
        RankedDocument(index, scores[index])
        for index in (blend_ranks(order, weight) if weight else order)
        if score_threshold is None or scores[index] >= score_threshold
    )
    return Ranking(tuple(kept)[:top_n], usage, scores.model)


def blend_ranks(
    reranked: Sequence[int], retrieval_weight: float, offset: int = RANK_OFFSET
) -> list[int]:
    """Order documents by weighted reciprocal ranks in both stages, best first.

    ``w / (k + rank retrieved) + (1 - w) / (k + rank reranked)``, with ranks from 1: reciprocal rank
    fusion (Cormack, Clarke and Büttcher, SIGIR 2009) with weights. Equal sums keep the order in
    which the documents were retrieved.

    :param reranked: the documents' places in the list that was retrieved, best first.
    :param retrieval_weight: ``w``; 0 gives the reranked order and 1 the retrieved one.
    :param offset: ``k``.
    """
    retrieved = sorted(reranked)
    rank_of = {place: rank for rank, place in enumerate(reranked, 1)}
    blended = {
        place: retrieval_weight / (offset + rank)
        + (1 - retrieval_weight) / (offset + rank_of[place])
        for rank, place in enumerate(retrieved, 1)
    }
    return sorted(retrieved, key=lambda place: -blended[place])


def sigmoid(logit: float) -> float:
    """Logistic function in float64: in float32, sigmoid(25.4) and sigmoid(26.2) are both 1.0."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


#: what a logit may be put through for a score, by torch's class name; none changes the order
SCORE_ACTIVATIONS: Mapping[str, Callable[[float], float]] = {
    "Sigmoid": sigmoid,
    "Identity": float,
    "Tanh": math.tanh,
}


def score_range(activation: Any, normalize: bool = True) -> tuple[float, float]:
    """The least and the greatest score that is reported.

    :param activation: see :meth:`Scores.from_logits`; a function is a calibration's.
    """
    if not normalize or activation == "Identity":
        return -math.inf, math.inf
    return (-1.0 if activation == "Tanh" else 0.0), 1.0
