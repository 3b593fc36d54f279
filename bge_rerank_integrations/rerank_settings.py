"""What both integrations keep of the documents that are reranked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from bge_rerank_integrations.adapter_settings import EngineSettings
from bge_rerank_integrations.checks import require
from bge_rerank_integrations.context import pruning
from bge_rerank_integrations.context.duplicates import DEFAULT_SHARE, checked_share
from bge_rerank_integrations.context.selection import Candidates, Kept, Selection
from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError
from bge_rerank_integrations.highlighting import Highlighter, Span
from bge_rerank_integrations.ranking import (
    ProgressScorer,
    Ranking,
    check_selection,
    check_threshold,
    rank,
)

logger = logging.getLogger(__name__)


class RerankSettings(EngineSettings):
    """Fields of a reranking component: what to keep, and the engine (or reranker) behind it.

    They may be assigned at any time, and are checked when they are.

    :raises pydantic.ValidationError: see :class:`EngineSettings`.
    :raises ModelLoadError: if the model cannot be loaded.
    """

    top_n: int | None = Field(default=3, description="How many documents to keep; None keeps all.")
    score_threshold: float | None = Field(
        default=None, description="Keep documents with score >= this, on the scale reported."
    )
    prune: float | None = Field(
        default=None,
        description="Cut the sentences of kept documents that score below this, on the scale "
        "reported; the best sentence of each stays. None cuts nothing.",
    )
    prune_share: float | None = Field(
        default=None,
        description="Cut the sentences of kept documents that score below this share of the "
        "document's best sentence, such as 0.1. None cuts nothing.",
    )
    prune_mark: str = Field(default="", description="What stands where sentences are cut: '…'.")
    drop_duplicates: bool | float | None = Field(
        default=None,
        description="Drop a document whose text stands in a better one by this share of its runs "
        f"of five words, and keep the next ones instead; True means {DEFAULT_SHARE}, None none.",
    )
    show_progress: bool = Field(
        default=False,
        description="Show a progress bar on standard error; needs an engine for a reranker.",
    )
    on_error: Literal["raise", "keep"] = Field(
        default="raise",
        description="What happens when reranking fails: 'raise' raises the error; 'keep' logs it "
        "and keeps the first top_n documents as they were retrieved, without new scores, or the "
        "ranked documents whole, where only pruning failed.",
    )

    # on the fields: after a check of the whole model fails, pydantic keeps the assigned value
    @field_validator("top_n", mode="before")
    @classmethod
    def _check_top_n(cls, top_n: int | None) -> int | None:
        check_selection(top_n, None)
        return top_n

    @field_validator("score_threshold")
    @classmethod
    def _check_score_threshold(cls, score_threshold: float | None) -> float | None:
        check_selection(None, score_threshold)
        return score_threshold

    @field_validator("prune")
    @classmethod
    def _check_prune(cls, prune: float | None) -> float | None:
        check_threshold("prune", prune)
        return prune

    @field_validator("prune_share")
    @classmethod
    def _check_prune_share(cls, share: float | None) -> float | None:
        is_share = share is None or 0 <= share <= 1
        require(is_share, "prune_share", "None or a number from 0 to 1", share)
        return share

    @field_validator("drop_duplicates", mode="before")
    @classmethod
    def _check_drop_duplicates(cls, share: Any) -> float | None:
        return checked_share(share)

    def _best(self, query: str, texts: Sequence[str], read: Sequence[str]) -> list[Kept]:
        """Rerank a call's documents, and keep the best of them.

        :param texts: of the documents themselves.
        :param read: what the reranker reads of each.
        """
        candidates = Candidates(texts, read)
        selection, threshold = self._selection, self.score_threshold
        if not candidates.read:
            ranking = Ranking()
        elif self.show_progress:
            pairs = [(query, text) for text in candidates.read]
            scores = self._pair_stream.score_pairs(pairs, show_progress=True)
            ranking = rank(scores, top_n=selection.ranked, score_threshold=threshold)
        else:
            ranking = self._reranker.rerank(query, candidates.read, selection.ranked, threshold)
        return selection.of(ranking, candidates)

    async def _abest(self, query: str, texts: Sequence[str], read: Sequence[str]) -> list[Kept]:
        candidates = Candidates(texts, read)
        selection, threshold = self._selection, self.score_threshold
        if not candidates.read:
            ranking = Ranking()
        elif self.show_progress:
            pairs = [(query, text) for text in candidates.read]
            scores = await self._pair_stream.ascore_pairs(pairs, show_progress=True)
            ranking = rank(scores, top_n=selection.ranked, score_threshold=threshold)
        else:
            asked = query, candidates.read, selection.ranked, threshold
            ranking = await self._reranker.arerank(*asked)
        return selection.of(ranking, candidates)

    @property
    def _pair_stream(self) -> ProgressScorer:
        if not isinstance(self._reranker, ProgressScorer):
            raise ConfigurationError(
                "show_progress needs a reranker with score_pairs() and ascore_pairs(), "
                f"got {type(self._reranker).__name__}"
            )
        return self._reranker

    def _pruned(self, query: str, texts: Sequence[str]) -> Sequence[str]:
        """The texts of kept documents without the sentences that are cut.

        :raises ConfigurationError: if the reranker given has no ``highlight()``.
        """
        if not self._prunes(texts):
            return texts
        return self._cut(texts, self._highlighter.highlight(query, texts))

    async def _apruned(self, query: str, texts: Sequence[str]) -> Sequence[str]:
        if not self._prunes(texts):
            return texts
        return self._cut(texts, await self._highlighter.ahighlight(query, texts))

    def _prunes(self, texts: Sequence[str]) -> bool:
        return bool(texts) and not (self.prune is None and self.prune_share is None)

    @property
    def _highlighter(self) -> Highlighter:
        if not isinstance(self._reranker, Highlighter):
            raise ConfigurationError(
                "prune needs a reranker with highlight() and ahighlight(), "
                f"got {type(self._reranker).__name__}"
            )
        return self._reranker

    def _cut(self, texts: Sequence[str], highlighted: list[list[Span]]) -> list[str]:
        return [
            pruning.prune(text, spans, self.prune, self.prune_share, self.prune_mark)
            for text, spans in zip(texts, highlighted, strict=True)
        ]

    @property
    def _selection(self) -> Selection:
        return Selection(self.top_n, self.drop_duplicates)

    def _goes_on_after(self, error: Exception, *, is_ranked: bool) -> bool:
        """Whether a call that failed is answered all the same.

        Logs the error if so. A setting that cannot work is a mistake in the program: it is raised.

        :param is_ranked: the documents were ranked, and are kept whole; otherwise they are kept as
            they were retrieved.
        """
        if self.on_error == "raise" or isinstance(error, (ConfigurationError, MissingExtraError)):
            return False
        failed, kept = (
            ("pruning", "the ranked documents are kept whole")
            if is_ranked
            else ("reranking", "the retrieved order is kept")
        )
        logger.warning("%s failed, %s: %s: %s", failed, kept, type(error).__name__, error)
        return True
