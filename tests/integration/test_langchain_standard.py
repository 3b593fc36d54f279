"""LangChain's own standard tests, on the retriever."""

from __future__ import annotations

from typing import Any

from fake_reranker import FakeReranker
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from bge_rerank_integrations.langchain import BGERerankRetriever

DOCUMENTS = [Document(page_content=text) for text in ["bread", "ships", "sails", "the sea"]]


class TestBGERerankRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return BGERerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {
            "base_retriever": RunnableLambda(lambda query: DOCUMENTS),
            "reranker": FakeReranker(),
        }

    @property
    def retriever_query_example(self) -> str:
        return "ships at sea"

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"
