"""LangChain's standard tests of retrievers; they need no network here."""

from typing import Any

from langchain_bge_rerank import BGERerankRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

DOCUMENTS = [Document(page_content=text) for text in ["bread", "ships", "sails", "the sea"]]


class TestBGERerankRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return BGERerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_retriever": RunnableLambda(lambda query: DOCUMENTS)}

    @property
    def retriever_query_example(self) -> str:
        return "ships at sea"

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"
