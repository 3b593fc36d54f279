"""The demo's question, asked through LangChain."""

from __future__ import annotations

# first: it raises MissingExtraError if LangChain is not installed
from bge_rerank_integrations.langchain import BGERerank  # isort: skip

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from bge_rerank_integrations.cli.demo.two_stage import DemoRun, FirstStage, timed
from bge_rerank_integrations.ranking import RankedDocument


class BM25Retriever(BaseRetriever):
    """The first stage as LangChain sees it."""

    first_stage: FirstStage

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # the base class passes it
    ) -> list[Document]:
        return [
            Document(id=str(hit.index), page_content=self.first_stage.passages[hit.index].content)
            for hit in self.first_stage.search(query)
        ]


def ask(question: str, first_stage: FirstStage, model: str, top_n: int) -> DemoRun:
    """Do what a ``ContextualCompressionRetriever`` does: retrieve, then compress."""
    retriever = BM25Retriever(first_stage=first_stage)
    reranker = BGERerank(model=model, top_n=top_n)
    documents, retrieve_s = timed(lambda: retriever.invoke(question))
    kept, rerank_s = timed(lambda: reranker.compress_documents(documents, question))
    return DemoRun(
        framework="LangChain",
        component="BGERerank(BaseDocumentCompressor)",
        found=tuple(_number(document) for document in documents),
        kept=tuple(
            RankedDocument(_number(document), document.metadata["relevance_score"])
            for document in kept
        ),
        retrieve_s=retrieve_s,
        rerank_s=rerank_s,
        engine_config=reranker.engine_config,
    )


def _number(document: Document) -> int:
    return int(str(document.id))
