"""From a call's candidates to what is kept: rerank, blend, drop duplicates, cut, prune, budget."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from .context.options import ContextOptions
from .context.selection import (
    CountTokens,
    Kept,
    at_most,
    best,
    blended,
    distinct,
    pruned,
    ranked,
    with_unscored,
    within_budget,
)
from .errors import PERMANENT_ERRORS, ConfigurationError, InputError, placed
from .highlighting import Highlighter
from .languages import unread_language
from .ranking import Ranking, Reranker, TokenUsage, rank

logger = logging.getLogger(__name__)

T = TypeVar("T")

# equal scores of fewer texts may be chance
_MANY = 3

# how a step is done that has a sync and an async function: one of the two with these arguments
_Way = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document of a call.

    :param text: its own text; without any it is not scored.
    :param read: what the reranker reads, such as its metadata with its text.
    :param before: what the language model reads before the text.
    :param source: of which it is a passage; None is no source.
    :param score: that the retriever gave.
    """

    text: str
    read: str
    before: str = ""
    source: Hashable = None
    score: float | None = None


class Selected(list[Kept]):
    """Kept documents, best first.

    :param error: what failed, where ``on_error="keep"`` answers all the same.
    """

    def __init__(self, kept: Iterable[Kept] = (), error: Exception | None = None) -> None:
        super().__init__(kept)
        self.error = error


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A reranker and the settings of what is kept, as they are when a call begins.

    :param told: what the log was told already, and is told once.
    :param depth_setting: sets how many candidates the first stage retrieves.
    :raises ConfigurationError: for options that contradict each other or the reranker.
    """

    reranker: Reranker
    options: ContextOptions
    told: set[str] = field(default_factory=set)
    depth_setting: str = "the number of candidates"

    def __post_init__(self) -> None:
        got = f"got {type(self.reranker).__name__}"
        if self.options.prunes and not isinstance(self.reranker, Highlighter):
            raise ConfigurationError(
                f"prune needs a reranker with highlight() and ahighlight(), {got}"
            )
        if self.options.show_progress and not _shows_progress(self.reranker):
            raise ConfigurationError(f"show_progress needs an engine for a reranker, {got}")
        if self.options.max_context_tokens is not None and self._count is None:
            raise ConfigurationError(
                f"max_context_tokens needs count_tokens= or an engine for a reranker, {got}"
            )
        self.options.check_scale(getattr(self.reranker, "score_range", None))

    def run(self, query: str, candidates: Sequence[Candidate]) -> Selected:
        """Keep the best of a call's candidates.

        :raises RerankError: as the reranker does, unless ``on_error="keep"`` answers the call.
        """
        return _result(self._steps(query, candidates, _now))

    async def arun(self, query: str, candidates: Sequence[Candidate]) -> Selected:
        """Run like :meth:`run`, without blocking the event loop."""
        return await self._steps(query, candidates, _awaited)

    async def _steps(self, query: str, candidates: Sequence[Candidate], do: _Way) -> Selected:
        if not isinstance(query, str):  # a mistake of the program's, whatever on_error says
            raise InputError(f"query must be a string, got {type(query).__name__}")
        selected = await self._best(query, candidates, do)
        if not selected.error:
            selected = await self._pruned(query, selected, do)
        if (budget := self.options.max_context_tokens) is None:
            return selected
        before = [it.before for it in candidates]
        fitting = within_budget, selected, before, budget, self._count, self.options.prunes
        return Selected(await _compute(do, *fitting), selected.error)

    async def _best(self, query: str, candidates: Sequence[Candidate], do: _Way) -> Selected:
        texts = [it.text for it in candidates]
        scored = [index for index, text in enumerate(texts) if text.strip()]
        while True:
            try:
                ranking = await self._rank(query, [candidates[index].read for index in scored], do)
                return Selected(await self._select(ranking, candidates, scored, do))
            except Exception as error:
                if self._leaves_out(error, scored):
                    continue
                self._raise_or_log(error, scored, "reranking failed, the retrieved order is kept")
                retrieved = [Kept(index, None, text) for index, text in enumerate(texts)]
                return Selected(retrieved[: self.options.top_n], error)

    async def _pruned(self, query: str, kept: Selected, do: _Way) -> Selected:
        scored = [it for it in kept if it.score is not None] if self.options.prunes else []
        if not scored:
            return kept
        asked: Any = self.reranker
        own = [it.text for it in scored]
        try:
            spans = await do(asked.highlight, asked.ahighlight, query, own)
            return Selected(await _compute(do, pruned, kept, spans, *self.options.pruning))
        except Exception as error:
            places = [it.index for it in scored]
            self._raise_or_log(error, places, "pruning failed, the ranked documents are kept whole")
            return Selected(kept, error)

    async def _rank(self, query: str, read: list[str], do: _Way) -> Ranking:
        top_n, threshold = self.options.n_ranked_needed, self.options.score_threshold
        if self.options.retrieval_weight:
            threshold = None  # ranks are those among all documents
        asked = self.reranker
        if not read:
            return Ranking()
        if "language" not in self.told and (told := unread_language(asked.model, query, read)):
            self._tell_once("language", told)
        if not self.options.show_progress:
            answer = await do(asked.rerank, asked.arerank, query, read, top_n, threshold)
            # a reranker of the user's own may answer a list of ranked documents
            return answer if isinstance(answer, Ranking) else Ranking(tuple(answer))
        engine: Any = asked
        pairs = [(query, text) for text in read]
        scores = await do(engine.score_pairs, engine.ascore_pairs, pairs, True)
        return rank(scores, top_n=top_n, score_threshold=threshold)

    async def _select(
        self, ranking: Ranking, candidates: Sequence[Candidate], scored: Sequence[int], do: _Way
    ) -> list[Kept]:
        options, top_n = self.options, self.options.top_n
        texts = [it.text for it in candidates]
        kept = ranked(ranking, texts, scored)
        self._tell_truncated(ranking.usage, len(scored))
        self._tell_wiring(kept, [candidates[index] for index in scored], candidates)
        if options.retrieval_weight:
            kept = blended(kept, options.retrieval_weight)
        kept = best(kept, options.score_threshold)
        if options.drop_duplicates is not None:
            needed = None if options.per_source else top_n
            kept = await _compute(do, distinct, kept, options.drop_duplicates, needed)
        if options.per_source:
            kept = at_most(kept, options.per_source, [it.source for it in candidates])
        return with_unscored(kept[:top_n], texts, scored, top_n)

    def _leaves_out(self, error: Exception, scored: list[int]) -> bool:
        """Whether the other documents are scored without the one that cannot be; takes it out."""
        if self.options.on_error == "raise" or not isinstance(error, InputError):
            return False
        if error.index is None or not 0 <= error.index < len(scored):
            return False
        index = scored.pop(error.index)
        logger.warning("document %d is kept without a score: %s", index, error)
        return True

    def _raise_or_log(self, error: Exception, places: Sequence[int], what: str) -> None:
        if self.options.on_error == "raise" or isinstance(error, PERMANENT_ERRORS):
            raise placed(error, places)
        logger.warning("%s: %s: %s", what, type(error).__name__, error)

    @property
    def _count(self) -> CountTokens | None:
        return self.options.count_tokens or getattr(self.reranker, "count_tokens", None)

    def _tell_wiring(
        self, kept: Sequence[Kept], scored: Sequence[Candidate], candidates: Sequence[Candidate]
    ) -> None:
        """Tell of a first stage that reranking can do nothing for."""
        top_n, n = self.options.top_n, len(scored)
        if top_n is not None and 0 < n <= top_n:
            self._tell_once(
                "few",
                f"top_n={top_n} keeps all of {n} candidates: raise {self.depth_setting}, so that "
                "the reranker has more to choose from",
            )
        scores = {it.score for it in kept}
        if len(scores) == 1 and len({it.text for it in kept}) >= _MANY:
            best_ones = f"the best {len(kept)} of {n} candidates all score {kept[0].score}"
            self._tell_once("constant", f"{best_ones}: their order says nothing")
        came_with = [candidates[it.index].score for it in kept]
        if len(scores) > 1 and came_with == [it.score for it in kept]:
            self._tell_once(
                "twice", "the candidates came with this reranker's own scores: they are reranked "
                "twice",
            )  # fmt: skip

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self.told:
            self.told.add(what)
            logger.warning(message)

    def _tell_truncated(self, usage: TokenUsage, count: int) -> None:
        if cut := usage.truncated_documents:
            message = f"the ends of {cut} of {count} documents were not read"
            self._tell_once("documents", f"{message} (max_length, long_documents)")
        if usage.query_truncated:
            self._tell_once("query", "the end of the query was not read (query_max_length)")


async def _now(call: Callable[..., T], _: Callable[..., Awaitable[T]], *given: Any) -> T:
    return call(*given)


async def _awaited(_: Callable[..., T], acall: Callable[..., Awaitable[T]], *given: Any) -> T:
    return await acall(*given)


async def _compute(do: _Way, function: Callable[..., list[Kept]], *given: Any) -> list[Kept]:
    # in a thread of its own: to compare a hundred texts of 2 kB takes some 150 ms
    kept: list[Kept] = await do(function, partial(asyncio.to_thread, function), *given)
    return kept


def _result(steps: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("a call that is done now waits")


def _shows_progress(reranker: Any) -> bool:
    score_pairs = getattr(reranker, "ascore_pairs", None)
    return score_pairs is not None and "show_progress" in inspect.signature(score_pairs).parameters
