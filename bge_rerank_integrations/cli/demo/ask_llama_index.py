"""The demo's question, asked through LlamaIndex."""

from __future__ import annotations

# first: it raises MissingExtraError if LlamaIndex is not installed
from bge_rerank_integrations.llama_index import BGERerank  # isort: skip

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bge_rerank_integrations.cli.demo.two_stage import DemoRun, FirstStage, timed
from bge_rerank_integrations.ranking import RankedDocument


class BM25Retriever(BaseRetriever):
    """The first stage as LlamaIndex sees it."""

    def __init__(self, first_stage: FirstStage) -> None:
        super().__init__()
        self._first_stage = first_stage

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(
                node=TextNode(
                    id_=str(hit.index), text=self._first_stage.passages[hit.index].content
                ),
                score=hit.score,
            )
            for hit in self._first_stage.search(query_bundle.query_str)
        ]


def ask(question: str, first_stage: FirstStage, model: str, top_n: int) -> DemoRun:
    """Do what a ``RetrieverQueryEngine`` does before it calls its LLM: retrieve, postprocess."""
    retriever = BM25Retriever(first_stage)
    reranker = BGERerank(model=model, top_n=top_n)
    nodes, retrieve_s = timed(lambda: retriever.retrieve(question))
    kept, rerank_s = timed(lambda: reranker.postprocess_nodes(nodes, query_str=question))
    return DemoRun(
        framework="LlamaIndex",
        component="BGERerank(BaseNodePostprocessor)",
        found=tuple(int(node.node_id) for node in nodes),
        kept=tuple(RankedDocument(int(node.node_id), node.get_score()) for node in kept),
        retrieve_s=retrieve_s,
        rerank_s=rerank_s,
        engine_config=reranker.engine_config,
    )
