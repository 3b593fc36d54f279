"""The public names, as in LangChain's own packages."""

import langchain_bge_rerank
from langchain_core.documents import BaseDocumentCompressor, Document

EXPECTED_ALL = ["BGECrossEncoder", "BGERerank", "BGERerankRetriever", "__version__"]


def test_all_imports() -> None:
    assert sorted(EXPECTED_ALL) == sorted(langchain_bge_rerank.__all__)
    assert langchain_bge_rerank.__version__
    assert issubclass(langchain_bge_rerank.BGERerank, BaseDocumentCompressor)


def test_the_best_document_comes_first() -> None:
    texts = ["Bread is baked from flour.", "A ship floats because it displaces water."]
    documents = [Document(page_content=text) for text in texts]

    compressor = langchain_bge_rerank.BGERerank("tiny", top_n=1)
    [kept] = compressor.compress_documents(documents, "why do ships float?")

    assert kept.page_content == texts[1]
