"""OpenInference's spans of LangChain runs: that of a reranking is of the kind ``RERANKER``.

OpenInference takes the kind from the type of its own copy of the run. The run itself stays a chain,
as other tracers know no such type (LangSmith's service refuses unknown ones). Other handlers than
OpenInference's are left alone.
Names: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

Given = dict[str, Any]


def with_span(
    rerank: Callable[[Given], list[Document]],
) -> Callable[[Given, CallbackManagerForChainRun, RunnableConfig], list[Document]]:
    """A function of a runnable that also fills its run's span.

    :param rerank: takes ``query`` and ``documents``; ``model`` and ``top_n`` are in the metadata.
    """

    def run(
        given: Given, run_manager: CallbackManagerForChainRun, config: RunnableConfig
    ) -> list[Document]:
        spans = _started(run_manager, given, config)
        kept = rerank(given)
        _ended(spans, kept)
        return kept

    return run


def with_async_span(
    arerank: Callable[[Given], Awaitable[list[Document]]],
) -> Callable[[Given, AsyncCallbackManagerForChainRun, RunnableConfig], Awaitable[list[Document]]]:
    """Like :func:`with_span`, of a coroutine function."""

    async def run(
        given: Given, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> list[Document]:
        spans = _started(run_manager, given, config)
        kept = await arerank(given)
        _ended(spans, kept)
        return kept

    return run


def _started(manager: Any, given: Given, config: RunnableConfig) -> list[Any]:
    """Make the run's spans such of a reranking."""
    metadata = config.get("metadata", {})
    spans = []
    for handler in manager.handlers:
        if not type(handler).__module__.startswith("openinference."):
            continue
        span, run = handler.get_span(manager.run_id), handler.run_map.get(str(manager.run_id))
        if span is None or run is None:
            continue
        run.run_type = "reranker"
        span.set_attribute("reranker.query", given["query"])
        span.set_attribute("reranker.model_name", metadata["model"])
        top_n = metadata["top_n"]
        span.set_attribute("reranker.top_k", len(given["documents"]) if top_n is None else top_n)
        _add_documents(span, "input", given["documents"])
        spans.append(span)
    return spans


def _ended(spans: Sequence[Any], kept: Sequence[Document]) -> None:
    for span in spans:
        _add_documents(span, "output", kept)


def _add_documents(span: Any, side: str, documents: Sequence[Document]) -> None:
    for place, document in enumerate(documents):
        about = f"reranker.{side}_documents.{place}.document"
        span.set_attribute(f"{about}.content", document.page_content)
        if document.id is not None:
            span.set_attribute(f"{about}.id", document.id)
        if side == "output" and "relevance_score" in document.metadata:
            span.set_attribute(f"{about}.score", document.metadata["relevance_score"])
