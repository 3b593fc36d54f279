"""The settings of what an integration keeps, declared as those of an engine are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..checks import (
    BOOL,
    FINITE,
    SHARE,
    STRING,
    SettingType,
    as_float,
    at_least,
    is_number,
    one_of,
    require,
)
from ..setting_types import OnError
from ..settings import Settings, setting

#: of a document's runs of words, how many may stand in one better document, as a share
DEFAULT_DUPLICATE_SHARE = 0.8


def _duplicate_share(value: Any) -> Any:
    value = as_float(value)
    return (DEFAULT_DUPLICATE_SHARE if value else None) if isinstance(value, bool) else value


def _is_function(value: Any) -> bool:
    return value is None or callable(value)


@dataclass(frozen=True)
class ContextOptions(Settings):
    """What an integration keeps of the documents that are reranked.

    :raises ConfigurationError: naming the option, what was expected and what came.
    """

    top_n: int | None = setting(
        3, at_least(1).or_none(), "How many documents to keep; None keeps all."
    )
    score_threshold: float | None = setting(
        None, FINITE.or_none(), "Keep documents with score >= this, on the scale reported."
    )
    retrieval_weight: float = setting(
        0.0,
        SHARE,
        "Weight of the order in which the documents were retrieved, from 0 (the reranker alone) to "
        "1 (the retriever alone): documents are ordered by weighted reciprocal ranks, and keep the "
        "model's scores.",
    )
    per_source: int | None = setting(
        None, at_least(1).or_none(), "How many passages of one source to keep; None keeps all."
    )
    max_context_tokens: int | None = setting(
        None,
        at_least(1).or_none(),
        "Keep the best documents that fit this many tokens together, after pruning; with prune or "
        "prune_share a document that does not fit is cut behind a sentence. None sets no limit.",
    )
    count_tokens: Callable[[str], int] | None = setting(  # noqa: RUF009  # it makes a field
        None,
        SettingType("None or a function from a text to its number of tokens", _is_function),
        "Counts the tokens for max_context_tokens, such as your LLM's tokenizer; None takes the "
        "engine's.",
    )
    prune: float | None = setting(
        None,
        FINITE.or_none(),
        "Cut the sentences of kept documents that score below this, on the scale reported; the "
        "best sentence of each stays. None cuts nothing.",
    )
    prune_share: float | None = setting(
        None,
        SHARE.or_none(),
        "Cut the sentences of kept documents that score below this share of the document's best "
        "sentence, such as 0.05; scores must not be below 0. None cuts nothing.",
    )
    prune_mark: str = setting("", STRING, "What stands where sentences are cut: '…'.")
    drop_duplicates: float | None = setting(
        None,
        SettingType(
            "a bool, None, or a share above 0 up to 1",
            lambda value: value is None or (is_number(value) and 0 < value <= 1),
            convert=_duplicate_share,
        ),
        "Drop a document whose text stands in a better one by this share of its runs of five "
        f"words, and keep the next ones instead; True means {DEFAULT_DUPLICATE_SHARE}, None none.",
    )
    show_progress: bool = setting(
        False, BOOL, "Show a progress bar on standard error; needs an engine for a reranker."
    )
    on_error: OnError = setting(  # noqa: RUF009  # it makes a field
        "raise",
        one_of(OnError),
        "What happens when reranking fails: 'raise' raises the error; 'keep' logs it and keeps the "
        "first top_n documents as they were retrieved, without new scores, or the ranked documents "
        "whole, where only pruning failed. An error that every call would meet is raised all the "
        "same.",
    )

    @property
    def pruning(self) -> tuple[float | None, float | None, str]:
        """What :func:`~bge_rerank_integrations.context.selection.prune` is told."""
        return self.prune, self.prune_share, self.prune_mark

    @property
    def n_ranked_needed(self) -> int | None:
        """How many ranked documents the steps behind need; None means all."""
        needs_all = self.retrieval_weight or self.per_source or self.drop_duplicates is not None
        return None if needs_all else self.top_n

    @property
    def prunes(self) -> bool:
        """Whether sentences are cut."""
        return not (self.prune is None and self.prune_share is None)

    def check_scale(self, scale: tuple[float, float] | None) -> None:
        """Refuse what means nothing on the scale of the scores.

        :param scale: the least and the greatest score that the reranker reports; None if unknown.
        :raises ConfigurationError: for ``prune_share`` where scores may be below 0, and for a
            threshold outside the scale.
        """
        if scale is None:
            return
        least, greatest = scale
        means_something = self.prune_share is None or least >= 0
        expected = "None where scores may be below 0: these are logits, or near them"
        require(means_something, "prune_share", expected, self.prune_share)
        for name, value in (("score_threshold", self.score_threshold), ("prune", self.prune)):
            expected = f"None or from {least:g} to {greatest:g}, as the scores of this model are"
            require(value is None or least <= value <= greatest, name, expected, value)
