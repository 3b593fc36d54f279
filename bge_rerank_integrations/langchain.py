"""LangChain integration: a document compressor, a retriever and a cross encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from .errors import ConfigurationError, MissingExtraError

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever, RetrieverLike
    from langchain_core.runnables import Runnable, RunnableConfig
except ModuleNotFoundError as error:
    # a part that is missing: the installed version is older than the extra asks for
    if (error.name or "").partition(".")[0] == "langchain_core":
        raise MissingExtraError("langchain") from error
    raise

from pydantic import ConfigDict, ValidationError, field_validator
from typing_extensions import Self

from .adapter_fields import EngineFields, sync_override
from .inputs import check_items
from .langchain_runs import PER_CALL, DocumentFields, RerankRun, read
from .ranking import PairScorer, Ranking, check_scores, check_selection


class BGERerank(DocumentFields, BaseDocumentCompressor):
    """Reranks retrieved documents with a BGE cross-encoder.

    Takes every setting of :class:`~bge_rerank_integrations.adapter_fields.RerankFields` and::

        ContextualCompressionRetriever(base_compressor=BGERerank(top_n=3), base_retriever=...)

    The documents given are left as they are: copies come back, best first, with their id and with
    the score in ``metadata["relevance_score"]``. The whole text of a document that ``prune`` cut is
    in ``metadata["pruned_from"]``; ``metadata["truncated"]`` marks one that the model did not read
    to its end. Each call is a run named ``BGERerank`` in traces.
    Where ``on_error="keep"`` answers a call that failed, the run carries the error, and the
    documents get no score, unless only pruning failed: then they are ranked, and whole. A document
    without text is not scored: it keeps its place, without a score; such documents take at most
    half of the ``top_n`` places, unless there are fewer texts.
    """

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Keep the documents most relevant to the query, best first.

        :param callbacks: of the run that this call belongs to.
        :raises RerankError: if the documents cannot be scored.
        """
        return RerankRun(self._pipeline(), query, _given(documents), self).invoke(callbacks)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Compress like :meth:`compress_documents`, without blocking the event loop."""
        given = _given(documents)
        sync, native = BGERerank.compress_documents, BGERerank.acompress_documents
        if own := sync_override(self, sync, native):
            return list(await asyncio.to_thread(own, given, query, callbacks))
        return await RerankRun(await self._apipeline(), query, given, self).ainvoke(callbacks)

    def rerank(
        self, documents: Sequence[str | Document], query: str, *, top_n: int | None = -1
    ) -> list[dict[str, Any]]:
        """Rank texts and return the raw results, as ``CohereRerank.rerank`` does.

        No run is made, and settings of the context (all but ``score_threshold``) are not applied.

        :param top_n: how many to keep; None keeps all, -1 as many as the compressor.
        :returns: ``index`` in ``documents`` and ``relevance_score`` of each kept text, best first.
        :raises RerankError: if the texts cannot be scored.
        """
        return _results(self._find().rerank(*self._raw(documents, query, top_n)))

    async def arerank(
        self, documents: Sequence[str | Document], query: str, *, top_n: int | None = -1
    ) -> list[dict[str, Any]]:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        asked = self._raw(documents, query, top_n)
        return _results(await (await self._afind()).arerank(*asked))

    def _raw(
        self, documents: Iterable[str | Document], query: str, top_n: int | None
    ) -> tuple[str, list[str], int | None, float | None]:
        names = self.metadata_fields
        texts = [read(each, names) if isinstance(each, Document) else each for each in documents]
        top_n = self.top_n if top_n == -1 else top_n
        return query, texts, *check_selection(top_n, self.score_threshold)


class BGERerankRetriever(DocumentFields, BaseRetriever):
    """A retriever whose documents are reranked: a runnable for chains and tools.

    Takes every setting of :class:`BGERerank` and the retriever to ask first::

        BGERerankRetriever(base_retriever=store.as_retriever(search_kwargs={"k": 100}), top_n=3)

    ``invoke(query, top_n=5)`` keeps another number of documents in that call, as do other settings
    of what is kept; an engine's are refused, and other arguments are the base retriever's.

    :param base_retriever: any runnable from a query to documents.
    """

    # BaseRetriever would let a misspelt setting pass
    model_config = ConfigDict(extra="forbid")

    base_retriever: RetrieverLike

    @field_validator("base_retriever", mode="before")
    @classmethod
    def _check_base_retriever(cls, base: Any) -> Any:
        if isinstance(base, Runnable):
            return base
        cure = "give RunnableLambda(function)" if callable(base) else "give a retriever"
        cure = "give its .as_retriever()" if hasattr(base, "as_retriever") else cure
        got = type(base).__name__
        raise ConfigurationError(f"base_retriever must be a Runnable, got {got}: {cure}")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        called = self._with_settings_of(given)
        pipeline = called._pipeline()
        config = RunnableConfig(callbacks=run_manager.get_child())
        found = _given(self.base_retriever.invoke(query, config, **given))
        return RerankRun(pipeline, query, found, called).invoke(run_manager.get_child())

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        of = BGERerankRetriever
        if own := sync_override(self, of._get_relevant_documents, of._aget_relevant_documents):
            return await asyncio.to_thread(own, query, run_manager=run_manager.get_sync(), **given)
        called = self._with_settings_of(given)
        pipeline = await called._apipeline()
        config = RunnableConfig(callbacks=run_manager.get_child())
        found = _given(await self.base_retriever.ainvoke(query, config, **given))
        return await RerankRun(pipeline, query, found, called).ainvoke(run_manager.get_child())

    def _with_settings_of(self, given: dict[str, Any]) -> Self:
        """This component with the settings of a call, which are taken out of its arguments.

        :raises ConfigurationError: for a setting that a call cannot change, or a misspelt one.
        """
        for name in given.keys() - PER_CALL:
            if name in type(self).model_fields:
                raise ConfigurationError(
                    f"{name} cannot change by the call: model_copy(update={{{name!r}: ...}})"
                )
            if close := get_close_matches(name, PER_CALL, n=1, cutoff=0.85):
                raise ConfigurationError(f"{name} is not a setting: did you mean {close[0]}?")
        changed = {name: given.pop(name) for name in PER_CALL if name in given}
        try:
            called = self.model_copy(update=changed)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(f"{first['loc']}: {first['msg']}") from error
        called._log_told = self._log_told
        return called


class BGECrossEncoder(EngineFields, BaseCrossEncoder):
    """A BGE cross-encoder where LangChain takes one, such as ``CrossEncoderReranker(model=...)``.

    Takes every setting of :class:`~bge_rerank_integrations.adapter_fields.EngineFields`.
    """

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score (query, text) pairs.

        :returns: one score a pair, in input order.
        :raises RerankError: if a pair cannot be scored; its ``index`` counts the pairs.
        :raises ConfigurationError: if the reranker given has no ``score_pairs()``.
        """
        reranker, pairs = self._find(), list(text_pairs)
        if not isinstance(reranker, PairScorer):
            raise ConfigurationError(
                f"reranker must have score_pairs(), got {type(reranker).__name__}"
            )
        return check_scores(reranker.score_pairs(pairs), len(pairs), reranker.model)


def _results(ranking: Ranking) -> list[dict[str, Any]]:
    return [{"index": kept.index, "relevance_score": float(kept.score)} for kept in ranking]


def _given(documents: Iterable[Document]) -> list[Document]:
    return check_items(documents, "documents", Document, {
        str: ": Document(page_content=...) takes a text",
        tuple: ": similarity_search_with_score gives (Document, score), give the documents alone",
    })  # fmt: skip
