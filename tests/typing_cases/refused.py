"""What cannot work, one mistake a line: refused by mypy and pyright. It is never run."""

from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.langchain import BGERerank as Compressor
from bge_rerank_integrations.llama_index import BGERerank as Postprocessor

RerankEngine.shared("tiny", use_fp16=True)
RerankEngine.shared("tiny", dtype="int4")
RerankEngine("tiny", device=3)
RerankEngine.shared("tiny").rerank("q", ["d"], top_k=3)
EngineConfig("tiny", cutoff_layers=["8"])
Postprocessor("tiny", top_k=3)
Postprocessor("tiny", dtype="fp16")
Postprocessor("tiny", cutoff_layers="8")
Compressor("tiny", model_name="tiny")
Compressor("tiny", top_n="3")
Postprocessor("tiny", prune="0.5")
Compressor("tiny", on_error="ignore")
