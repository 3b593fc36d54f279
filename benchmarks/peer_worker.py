"""One reranker in a process of its own: answers each line on stdin with its seconds and scores.

Runs in the environment of the peer, so it imports nothing of this project but the engine itself,
and that only for the engine's own rows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], "list[float] | None"]

_MAX_LENGTH = 512


def _engine(model: str, dtype: Any) -> Score:
    from bge_rerank_integrations import RerankEngine

    return RerankEngine(
        model, dtype=dtype, device="cpu", normalize=False, max_length=_MAX_LENGTH
    ).score_pairs


def _cross_encoder(model: str, **settings: Any) -> Score:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    encoder = CrossEncoder(
        model, device="cpu", max_length=_MAX_LENGTH, activation_fn=Identity(), **settings
    )
    return lambda pairs: encoder.predict(pairs).tolist()


def _onnx(model: str, **settings: Any) -> Score:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    # onnxruntime counts the machine's cores, and threads that share one spin against each other
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    kwargs = {"session_options": options, **settings}
    return _cross_encoder(model, backend="onnx", model_kwargs=kwargs)


def _onnx_int8(model: str) -> Score:
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    folder = tempfile.mkdtemp(dir=sys.argv[3])
    encoder = CrossEncoder(model, device="cpu", backend="onnx")
    encoder.save_pretrained(folder)
    export_dynamic_quantized_onnx_model(encoder, "avx512_vnni", folder)
    return _onnx(folder, file_name="model_qint8_avx512_vnni.onnx")


def _flag_embedding(model: str) -> Score:
    from FlagEmbedding import FlagReranker

    reranker = FlagReranker(model, devices="cpu", max_length=_MAX_LENGTH)
    return lambda pairs: list(reranker.compute_score(pairs))


def _llama_index(model: str) -> Score:
    from llama_index.core.postprocessor import SentenceTransformerRerank
    from llama_index.core.schema import NodeWithScore, TextNode

    reranker = SentenceTransformerRerank(model=model, top_n=10_000, device="cpu")

    def score(pairs: Pairs) -> None:
        nodes = [NodeWithScore(node=TextNode(text=passage)) for _, passage in pairs]
        reranker.postprocess_nodes(nodes, query_str=pairs[0][0])

    return score


def _langchain(model: str) -> Score:
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document

    encoder = HuggingFaceCrossEncoder(model_name=model, model_kwargs={"device": "cpu"})
    reranker = CrossEncoderReranker(model=encoder, top_n=10_000)

    def score(pairs: Pairs) -> None:
        documents = [Document(passage) for _, passage in pairs]
        reranker.compress_documents(documents, pairs[0][0])

    return score


# name → (what must be installed, how to make it)
PEERS: dict[str, tuple[tuple[str, ...], Callable[[str], Score]]] = {
    "engine float32": ((), lambda m: _engine(m, "float32")),
    "engine auto": ((), lambda m: _engine(m, "auto")),
    # a checkpoint stored in half precision would run in it, which is slower on a CPU
    "sentence-transformers": (
        ("sentence-transformers",),
        lambda m: _cross_encoder(m, model_kwargs={"dtype": "float32"}),
    ),
    "sentence-transformers onnx": (
        ("sentence-transformers", "optimum-onnx", "onnxruntime"),
        _onnx,
    ),
    "sentence-transformers openvino": (
        ("sentence-transformers", "optimum-intel", "openvino"),
        lambda m: _cross_encoder(m, backend="openvino"),
    ),
    "sentence-transformers onnx int8": (
        ("sentence-transformers", "optimum-onnx", "onnxruntime"),
        _onnx_int8,
    ),
    "FlagEmbedding": (("FlagEmbedding",), _flag_embedding),
    "LlamaIndex SentenceTransformerRerank": (
        ("llama-index-core", "sentence-transformers"),
        _llama_index,
    ),
    "LangChain CrossEncoderReranker": (
        ("langchain-classic", "langchain-community", "sentence-transformers"),
        _langchain,
    ),
}


def main() -> None:
    """Make the peer that the arguments name, say so, and score whatever comes in."""
    name, model = sys.argv[1:3]
    if len(sys.argv) > 4:
        # before any library counts the cores
        os.sched_setaffinity(0, {int(sys.argv[4])})
    packages, make = PEERS[name]
    answers = sys.stdout
    # libraries print what they like; answers stay alone on their stream
    sys.stdout = sys.stderr
    found = {package: version(package) for package in (*packages, "torch", "transformers")}
    score = make(model)
    print(json.dumps({"versions": found}), file=answers, flush=True)
    for line in sys.stdin:
        pairs = [tuple(pair) for pair in json.loads(line)]
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score(pairs)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"seconds": spent, "scores": scores}), file=answers, flush=True)


if __name__ == "__main__":
    main()
