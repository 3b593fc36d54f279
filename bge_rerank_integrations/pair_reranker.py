"""Other packages' cross-encoders as rerankers.

An instance of sentence-transformers' ``CrossEncoder`` or of LangChain's ``BaseCrossEncoder`` scores
pairs; here it gets the methods that the integrations need.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .errors import ConfigurationError, ScoringError
from .inputs import check_pairs, query_pairs
from .ranking import (
    SCORE_ACTIVATIONS,
    Ranking,
    Reranker,
    Scores,
    check_scores,
    check_selection,
    rank,
    score_range,
)

ScorePairs = Callable[[list[tuple[str, str]]], Scores]


class PairReranker:
    """Ranks with what scores pairs; a call on an event loop is made in a thread.

    :param model: the model's name.
    :param score: pairs → scores with logits, in input order.
    :param score_range: the least and the greatest score, where that is known.
    """

    def __init__(
        self, model: str, score: ScorePairs, score_range: tuple[float, float] | None = None
    ) -> None:
        self.model = model
        self.score_range = score_range
        self._score = score

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        """Rank documents by relevance to the query, best first.

        :raises InputError: for a query or document that is not a string or not valid Unicode.
        :raises NonFiniteScoreError: if a score is NaN or infinite.
        """
        check_selection(top_n, score_threshold)
        scores = self.score_pairs(query_pairs(query, documents))
        return rank(scores, top_n=top_n, score_threshold=score_threshold)

    async def arerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
    ) -> Ranking:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        return await asyncio.to_thread(self.rerank, query, documents, top_n, score_threshold)

    def score_pairs(self, pairs: Iterable[Sequence[str]]) -> Scores:
        """Score (query, document) pairs, in input order."""
        checked = check_pairs(pairs)
        return self._score(checked) if checked else Scores(model=self.model)


def as_reranker(given: Any) -> Reranker:
    """What a caller gives as ``reranker=``, as a reranker.

    :raises ConfigurationError: if it can neither rerank nor score pairs.
    """
    if isinstance(given, Reranker):
        return given
    if _is_a(given, "sentence_transformers.cross_encoder", "CrossEncoder"):
        return _of_sentence_transformers(given)
    if _is_a(given, "langchain_core.cross_encoders", "BaseCrossEncoder"):
        return _of_langchain(given)
    raise ConfigurationError(
        "reranker must have model, rerank() and arerank(), or be a CrossEncoder of "
        f"sentence-transformers or a BaseCrossEncoder of LangChain, got {type(given).__name__}"
    )


def _is_a(given: Any, module: str, name: str) -> bool:
    # an instance of a class whose module is not loaded cannot exist
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(given, kind)


def _of_sentence_transformers(encoder: Any) -> PairReranker:
    if encoder.num_labels != 1:
        raise ConfigurationError(f"reranker must have one label, it has {encoder.num_labels}")
    import torch

    model = getattr(encoder.config, "name_or_path", "") or "CrossEncoder"

    def score(pairs: list[tuple[str, str]]) -> Scores:
        # its activation in float64: in float32 a sigmoid makes 1.0 of different logits
        raw = encoder.predict(
            pairs,
            activation_fn=torch.nn.Identity(),
            convert_to_tensor=True,
            show_progress_bar=False,
        ).double()
        logits = check_scores(raw.tolist(), len(pairs), model)
        scores = check_scores(encoder.activation_fn(raw).tolist(), len(pairs), model)
        return Scores(scores, logits, model=model)

    activation = type(encoder.activation_fn).__name__
    known = activation in SCORE_ACTIVATIONS
    return PairReranker(model, score, score_range(activation) if known else None)


def _of_langchain(encoder: Any) -> PairReranker:
    name = getattr(encoder, "model_name", None)
    model = name if isinstance(name, str) else type(encoder).__name__

    def score(pairs: list[tuple[str, str]]) -> Scores:
        answer = encoder.score(pairs)
        if isinstance(answer, str) or not isinstance(answer, Iterable):
            raise ScoringError(f"{model} must give a list of scores, got {type(answer).__name__}")
        scores = check_scores(answer, len(pairs), model)
        return Scores(scores, scores, model=model)

    return PairReranker(model, score)
