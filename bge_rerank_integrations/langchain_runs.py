"""One reranking as a LangChain run: documents in, documents out, and what traces are told.

OpenInference's spans of such a run are of the kind ``RERANKER``: it takes the kind from the type of
its own copy of the run. The run itself stays a chain, as other tracers know no such type
(LangSmith's service refuses unknown ones), and other handlers than OpenInference's are left alone.
Names: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
    Callbacks,
)
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import Field, field_validator

from .adapter_fields import RerankFields
from .checks import plain
from .context.selection import Kept
from .errors import ConfigurationError
from .pipeline import Candidate, Pipeline, Selected

RELEVANCE_SCORE = "relevance_score"
# keys that retrievers and rerankers put a score in
RETRIEVAL_SCORES = (RELEVANCE_SCORE, "score")
PRUNED_FROM = "pruned_from"

Given = dict[str, Any]


class DocumentFields(RerankFields):
    """Fields of a component that reranks documents; see :class:`RerankFields` for errors."""

    metadata_fields: tuple[str, ...] = Field(
        default=(),
        description="Metadata that the reranker reads before the text, one 'name: value' a line.",
    )
    source_key: str = Field(
        default="source", description="Metadata that names a document's source, for per_source."
    )
    retrieval_score_key: str | None = Field(
        default=None,
        description="Metadata with the retriever's score, for keep_retrieval_score; None takes "
        "relevance_score or score, where one is there.",
    )

    _depth_setting = "search_kwargs={'k': ...} of the retriever"

    @field_validator("metadata_fields", mode="before")
    @classmethod
    def _check_metadata_fields(cls, names: Any) -> Any:
        if isinstance(names, str):
            raise ConfigurationError(f"metadata_fields must be a list, such as [{names!r}]")
        return tuple(names) if isinstance(names, Iterable) else names

    def _candidates(self, documents: Sequence[Document]) -> list[Candidate]:
        return [
            Candidate(
                it.page_content,
                read(it, self.metadata_fields),
                source=_hashable(it.metadata.get(self.source_key)),
                score=it.metadata.get(RELEVANCE_SCORE),
            )
            for it in documents
        ]

    def _kept(self, document: Document, kept: Kept) -> Document:
        """A copy of a document that is kept; a score that it came with is not ours."""
        metadata = {**document.metadata}
        given = (self.retrieval_score_key,) if self.retrieval_score_key else RETRIEVAL_SCORES
        score = plain(next((metadata[key] for key in given if key in metadata), None))
        metadata |= self._told(kept, metadata, score)
        metadata.pop(RELEVANCE_SCORE, None)
        if kept.score is not None:
            metadata[RELEVANCE_SCORE] = kept.score
        if kept.text != document.page_content:
            metadata[PRUNED_FROM] = document.page_content
        return document.model_copy(update={"metadata": metadata, "page_content": kept.text})


# what may be assigned may also change by the call
PER_CALL = tuple(name for name, it in DocumentFields.model_fields.items() if not it.frozen)


class RerankRun:
    """One call, as a runnable: a compressor by itself would not show in traces."""

    def __init__(
        self, pipeline: Pipeline, query: str, documents: list[Document], fields: DocumentFields
    ) -> None:
        self._pipeline, self._fields = pipeline, fields
        self._given = {"query": query, "documents": documents}
        self._query, self._documents = query, documents
        self._candidates = fields._candidates(documents)
        self._run: RunnableLambda[Given, list[Document]] = RunnableLambda(
            self._rerank, afunc=self._arerank, name="BGERerank"
        )
        self._failed: Exception | None = None
        self._kept: list[Document] = []

    def invoke(self, callbacks: Callbacks | None) -> list[Document]:
        """The documents that are kept, best first."""
        if not self._documents:
            return []
        try:
            return self._run.invoke(self._given, self._config(callbacks))
        except Exception as error:
            return self._answer(error)

    async def ainvoke(self, callbacks: Callbacks | None) -> list[Document]:
        """Answer like :meth:`invoke`, without blocking the event loop."""
        if not self._documents:
            return []
        try:
            return await self._run.ainvoke(self._given, self._config(callbacks))
        except Exception as error:
            return self._answer(error)

    def _rerank(self, given: Given, run_manager: CallbackManagerForChainRun) -> list[Document]:
        spans = self._spans(run_manager)
        return self._end(spans, self._pipeline.run(given["query"], self._candidates))

    async def _arerank(
        self, given: Given, run_manager: AsyncCallbackManagerForChainRun
    ) -> list[Document]:
        spans = self._spans(run_manager)
        return self._end(spans, await self._pipeline.arun(given["query"], self._candidates))

    def _config(self, callbacks: Callbacks | None) -> RunnableConfig:
        pipeline = self._pipeline
        metadata = {"model": pipeline.reranker.model, "top_n": pipeline.options.top_n}
        return RunnableConfig(callbacks=callbacks, metadata=metadata)

    def _end(self, spans: Sequence[Any], selected: Selected) -> list[Document]:
        self._kept = [self._fields._kept(self._documents[it.index], it) for it in selected]
        self._failed = selected.error
        if self._failed is not None:
            raise self._failed  # the run ends with it
        for span in spans:
            _add_documents(span, "output", self._kept)
        return self._kept

    def _answer(self, error: Exception) -> list[Document]:
        """What is kept all the same; an error of a handler is raised as it is."""
        if error is not self._failed:
            raise error
        return self._kept

    def _spans(self, manager: Any) -> list[Any]:
        """OpenInference's spans of the run, marked as of a reranking."""
        spans = []
        top_n = self._pipeline.options.top_n
        for handler in manager.handlers:
            if not type(handler).__module__.startswith("openinference."):
                continue
            span, run = handler.get_span(manager.run_id), handler.run_map.get(str(manager.run_id))
            if span is None or run is None:
                continue
            run.run_type = "reranker"
            span.set_attribute("reranker.query", self._query)
            span.set_attribute("reranker.model_name", self._pipeline.reranker.model)
            span.set_attribute("reranker.top_k", len(self._documents) if top_n is None else top_n)
            _add_documents(span, "input", self._documents)
            spans.append(span)
        return spans


def read(document: Document, names: Sequence[str]) -> str:
    """What the reranker reads of a document."""
    metadata = document.metadata
    lines = [f"{name}: {metadata[name]}" for name in names if name in metadata]
    return "\n".join([*lines, "", document.page_content]) if lines else document.page_content


def _hashable(source: Any) -> Hashable:
    try:
        hash(source)
    except TypeError:
        return repr(source)
    return source  # type: ignore[no-any-return]


def _add_documents(span: Any, side: str, documents: Sequence[Document]) -> None:
    for place, document in enumerate(documents):
        about = f"reranker.{side}_documents.{place}.document"
        span.set_attribute(f"{about}.content", document.page_content)
        if document.id is not None:
            span.set_attribute(f"{about}.id", document.id)
        if side == "output" and RELEVANCE_SCORE in document.metadata:
            span.set_attribute(f"{about}.score", document.metadata[RELEVANCE_SCORE])
