"""LangChain integration: BGE rerankers."""

from importlib.metadata import version

from bge_rerank_integrations.langchain import BGECrossEncoder, BGERerank, BGERerankRetriever

__version__ = version("langchain-bge-rerank")

__all__ = ["BGECrossEncoder", "BGERerank", "BGERerankRetriever", "__version__"]
