"""LangChain integration: a document compressor, a retriever and a cross encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bge_rerank_integrations.errors import ConfigurationError, MissingExtraError

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever, RetrieverLike
    from langchain_core.runnables import RunnableConfig, RunnableLambda
except ModuleNotFoundError as error:
    # a part that is missing: the installed version is older than the extra asks for
    if (error.name or "").partition(".")[0] == "langchain_core":
        raise MissingExtraError("langchain") from error
    raise

from pydantic import ConfigDict, Field

from bge_rerank_integrations.adapter_settings import EngineSettings
from bge_rerank_integrations.context.selection import Kept
from bge_rerank_integrations.langchain_spans import with_async_span, with_span
from bge_rerank_integrations.ranking import PairScorer, Ranking
from bge_rerank_integrations.rerank_settings import RerankSettings

RELEVANCE_SCORE = "relevance_score"
PRUNED_FROM = "pruned_from"


class DocumentSettings(RerankSettings):
    """The settings of a component that reranks documents.

    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
    """

    metadata_fields: tuple[str, ...] = Field(
        default=(),
        description="Metadata that the reranker reads before the text, one 'name: value' a line.",
    )

    def _read(self, document: Document) -> str:
        """What the reranker reads of a document."""
        lines = [
            f"{name}: {document.metadata[name]}"
            for name in self.metadata_fields
            if name in document.metadata
        ]
        text = document.page_content
        return "\n".join([*lines, "", text]) if lines else text


class BGERerank(DocumentSettings, BaseDocumentCompressor):
    """Reranks retrieved documents with a BGE cross-encoder.

    Takes every setting of :class:`~bge_rerank_integrations.rerank_settings.RerankSettings` and::

        ContextualCompressionRetriever(base_compressor=BGERerank(top_n=3), base_retriever=...)

    The documents given are left as they are: copies come back, best first, with their id and with
    the score in ``metadata["relevance_score"]``. The whole text of a document that ``prune`` cut is
    in ``metadata["pruned_from"]``. Each call is a run named ``BGERerank`` in traces.
    Where ``on_error="keep"`` answers a call that failed, the run carries the error, and the
    documents get no score, unless only pruning failed: then they are ranked, and whole. A document
    without text is not scored: it keeps its place, and gets no score either.

    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
    """

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Keep the documents most relevant to the query, best first.

        :param callbacks: of the run that this call belongs to.
        :raises RerankError: if the documents cannot be scored.
        """
        if not documents:
            return []
        ranked: list[Document] = []
        run, config = self._run(ranked), self._run_config(callbacks)
        try:
            return run.invoke(_given(documents, query), config)
        except Exception as error:
            if not self._goes_on_after(error, is_ranked=bool(ranked)):
                raise
            return ranked or self._as_retrieved(documents)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Compress like :meth:`compress_documents`, without blocking the event loop."""
        if not documents:
            return []
        ranked: list[Document] = []
        run, config = self._run(ranked), self._run_config(callbacks)
        try:
            return await run.ainvoke(_given(documents, query), config)
        except Exception as error:
            if not self._goes_on_after(error, is_ranked=bool(ranked)):
                raise
            return ranked or self._as_retrieved(documents)

    def rerank(
        self, documents: Sequence[str | Document], query: str, *, top_n: int | None = -1
    ) -> list[dict[str, Any]]:
        """Rank texts and return the raw results, as ``CohereRerank.rerank`` does.

        No run is made, and settings of the context (all but ``score_threshold``) are not applied.

        :param top_n: how many to keep; None keeps all, -1 as many as the compressor.
        :returns: for each kept text ``index``, its place in ``documents``, and
            ``relevance_score``; best first.
        :raises RerankError: if the texts cannot be scored.
        """
        return _results(self._reranker.rerank(*self._raw(documents, query, top_n)))

    async def arerank(
        self, documents: Sequence[str | Document], query: str, *, top_n: int | None = -1
    ) -> list[dict[str, Any]]:
        """Rank like :meth:`rerank`, without blocking the event loop."""
        return _results(await self._reranker.arerank(*self._raw(documents, query, top_n)))

    def _raw(
        self, documents: Sequence[str | Document], query: str, top_n: int | None
    ) -> tuple[str, list[str], int | None, float | None]:
        texts = [
            self._read(document) if isinstance(document, Document) else document
            for document in documents
        ]
        return query, texts, self.top_n if top_n == -1 else top_n, self.score_threshold

    def _run(self, ranked: list[Document]) -> RunnableLambda[dict[str, Any], list[Document]]:
        """One call's run: a runnable, because a compressor by itself does not show in traces.

        :param ranked: gets the documents that are kept, before they are pruned.
        """

        def rerank(given: dict[str, Any]) -> list[Document]:
            ranked.extend(_ranked(given["documents"], self._best(*self._asked(given))))
            return _with_texts(ranked, self._pruned(given["query"], _texts(ranked)))

        async def arerank(given: dict[str, Any]) -> list[Document]:
            ranked.extend(_ranked(given["documents"], await self._abest(*self._asked(given))))
            return _with_texts(ranked, await self._apruned(given["query"], _texts(ranked)))

        return RunnableLambda(with_span(rerank), afunc=with_async_span(arerank), name="BGERerank")

    def _run_config(self, callbacks: Callbacks | None) -> RunnableConfig:
        metadata = {"model": self._reranker.model, "top_n": self.top_n}
        return RunnableConfig(callbacks=callbacks, metadata=metadata)

    def _asked(self, given: dict[str, Any]) -> tuple[str, list[str], list[str]]:
        documents = given["documents"]
        return given["query"], _texts(documents), [self._read(document) for document in documents]

    def _as_retrieved(self, documents: Sequence[Document]) -> list[Document]:
        return [_copy(document, {}) for document in documents[: self.top_n]]


class BGERerankRetriever(DocumentSettings, BaseRetriever):
    """A retriever whose documents are reranked: a runnable for chains and tools.

    Takes every setting of :class:`BGERerank` and the retriever to ask first::

        BGERerankRetriever(base_retriever=store.as_retriever(search_kwargs={"k": 100}), top_n=3)

    ``invoke(query, top_n=5)`` keeps another number of documents in that call, and the other
    settings of what is kept work alike; other arguments are handed to the base retriever.

    :param base_retriever: any runnable from a query to documents.
    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
    """

    # BaseRetriever would let a misspelt setting pass
    model_config = ConfigDict(extra="forbid")

    base_retriever: RetrieverLike

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        compressor = self._compressor(given)
        config = RunnableConfig(callbacks=run_manager.get_child())
        documents = self.base_retriever.invoke(query, config, **given)
        return compressor.compress_documents(documents, query, run_manager.get_child())

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        compressor = self._compressor(given)
        config = RunnableConfig(callbacks=run_manager.get_child())
        documents = await self.base_retriever.ainvoke(query, config, **given)
        return await compressor.acompress_documents(documents, query, run_manager.get_child())

    def _compressor(self, given: dict[str, Any]) -> BGERerank:
        """The reranker of one call; takes its settings out of the call's arguments."""
        names = BGERerank.model_fields.keys() - EngineSettings.model_fields.keys()
        settings = {name: given.pop(name, getattr(self, name)) for name in names}
        return BGERerank(reranker=self._reranker, **settings)


class BGECrossEncoder(EngineSettings, BaseCrossEncoder):
    """A BGE cross-encoder where LangChain takes one, such as ``CrossEncoderReranker(model=...)``.

    Takes every setting of :class:`~bge_rerank_integrations.adapter_settings.EngineSettings`.

    :raises pydantic.ValidationError: for a setting that cannot work (a ``ValueError``).
    :raises ModelLoadError: if the model cannot be loaded.
    """

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score (query, text) pairs.

        :returns: one score a pair, in input order.
        :raises RerankError: if a pair cannot be scored; its ``index`` counts the pairs.
        :raises ConfigurationError: if the reranker given has no ``score_pairs()``.
        """
        if not isinstance(self._reranker, PairScorer):
            raise ConfigurationError(
                f"reranker must have score_pairs(), got {type(self._reranker).__name__}"
            )
        return list(map(float, self._reranker.score_pairs(text_pairs)))


def _ranked(documents: Sequence[Document], best: Sequence[Kept]) -> list[Document]:
    return [
        _copy(documents[it.index], {} if it.score is None else {RELEVANCE_SCORE: it.score})
        for it in best
    ]


def _results(ranking: Ranking) -> list[dict[str, Any]]:
    return [{"index": kept.index, "relevance_score": float(kept.score)} for kept in ranking]


def _given(documents: Sequence[Document], query: str) -> dict[str, Any]:
    return {"query": query, "documents": list(documents)}


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _with_texts(documents: Sequence[Document], texts: Sequence[str]) -> list[Document]:
    return [_pruned(document, text) for document, text in zip(documents, texts, strict=True)]


def _pruned(document: Document, text: str) -> Document:
    if text == document.page_content:
        return document
    pruned = _copy(document, {PRUNED_FROM: document.page_content})
    pruned.page_content = text
    return pruned


def _copy(document: Document, metadata: dict[str, Any]) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, **metadata}})
