"""LlamaIndex postprocessor: BGE rerankers."""

from bge_rerank_integrations.llama_index import BGERerank

__all__ = ["BGERerank"]
