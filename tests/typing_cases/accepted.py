"""What the documentation shows: accepted by mypy and pyright in strict mode. It is never run."""

from __future__ import annotations

from pathlib import Path

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore

from bge_rerank_integrations import EngineConfig, Ranking, RemoteReranker, RerankEngine, Scores
from bge_rerank_integrations import langchain as lc
from bge_rerank_integrations import llama_index as li
from bge_rerank_integrations.highlighting import Span

MODEL = "BAAI/bge-reranker-v2-m3"


async def engines(documents: list[str]) -> tuple[object, ...]:
    engine = RerankEngine.shared()
    RerankEngine(MODEL, device="cuda:0", dtype="bfloat16", max_length=1024)
    RerankEngine.shared(Path("models") / "mine", device=None, cache_folder=Path("cache"))
    RerankEngine.shared(MODEL, device=["cuda:0", "cuda:1"], max_batch_tokens=16384)
    RerankEngine.shared(MODEL, device=("cuda:0", "cuda:1"), local_files_only=True)
    RerankEngine.shared(MODEL, cutoff_layers=[2], compress_ratio=2, compress_layers=[8])
    RerankEngine.shared(MODEL, cutoff_layers=28, compress_layers=8)
    RerankEngine.shared(EngineConfig(MODEL, device=["cpu"], cutoff_layers=(8, 16)), normalize=False)
    EngineConfig(model=Path("mine"), revision="main", recipe="classifier", device=None)

    ranking: Ranking = engine.rerank("q", documents, top_n=3, score_threshold=0.5)
    place: int = ranking[0].index
    score: float = ranking[0].score
    tokens: int = ranking.total_tokens
    scores: Scores = engine.score("q", documents, long_documents="window", timeout_s=2)
    each: list[float] = list(scores)
    engine.score_pairs([("q", "d"), ["q", "d"]], show_progress=True)
    other: RerankEngine = engine.with_options(max_length=256, instruction=None)
    await engine.arerank("q", documents, None, 0.5, normalize=True)
    spans: list[list[Span]] = engine.highlight("q", documents, normalize=False)
    RerankEngine.shared(calibration="tiny.json")
    return place, score, tokens, each, other, spans


def llama_index(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    reranker = li.BGERerank(MODEL, top_n=3)
    li.BGERerank(model=Path("mine"), top_n=None, score_threshold=0.5, device=["cuda:0", "cuda:1"])
    li.BGERerank(cutoff_layers=[2], keep_retrieval_score=True, metadata_mode=MetadataMode.NONE)
    li.BGERerank(reranker=RerankEngine.shared("tiny"), device=None, cache_folder=Path("cache"))
    li.BGERerank("tiny", prune=0.05, prune_share=0.1, prune_mark="…", drop_duplicates=True)
    li.BGERerank("tiny", drop_duplicates=0.5, on_error="keep", show_progress=True)
    li.BGERerank("tiny", calibration="tiny.json", prune=None)
    li.BGERerank("tiny", lazy=True)
    reranker.top_n = 5
    return reranker.postprocess_nodes(nodes, query_str="q")


async def langchain(documents: list[Document], retriever: BaseRetriever) -> tuple[object, ...]:
    compressor = lc.BGERerank(MODEL, top_n=3)
    lc.BGERerank(Path("mine"), device=["cuda:0", "cuda:1"], cutoff_layers=[2], dtype="float32")
    lc.BGERerank(reranker=RemoteReranker("http://127.0.0.1:8787", api_key=None), top_n=None)
    lc.BGERerank("tiny", prune=0.05, prune_share=0.1, prune_mark="…", drop_duplicates=True)
    lc.BGERerank("tiny", drop_duplicates=0.5, on_error="keep", metadata_fields=("title",))
    lc.BGERerank("tiny", calibration="tiny.json", show_progress=True)
    kept = compressor.compress_documents(documents, "q")
    raw = compressor.rerank([*documents, "a text"], "q", top_n=None)
    lc.BGERerankRetriever("tiny", base_retriever=retriever, top_n=3, max_length=256)
    lc.BGERerankRetriever("tiny", base_retriever=retriever, prune_share=0.1, on_error="keep")
    found: list[Document] = await lc.BGERerankRetriever(base_retriever=retriever).ainvoke("q")
    scores: list[float] = lc.BGECrossEncoder("tiny", device=None).score([("q", "d")])
    return kept, raw[0]["relevance_score"], found, scores
