"""One reranker in a process of its own: answers each line on stdin with its seconds and scores.

Runs in the environment of the peer, so it imports nothing of this project but the engine itself,
and that only for the engine's own rows.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], "list[float] | None"]

_MAX_LENGTH = 512


def _engine(model: str, device: str, dtype: Any) -> Score:
    from bge_rerank_integrations import RerankEngine

    return RerankEngine(
        model, dtype=dtype, device=device, normalize=False, max_length=_MAX_LENGTH
    ).score_pairs


def _cross_encoder(model: str, device: str, **settings: Any) -> Score:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    encoder = CrossEncoder(
        model, device=device, max_length=_MAX_LENGTH, activation_fn=Identity(), **settings
    )
    # the default is 32, which leaves a GPU waiting
    size = 32 if device == "cpu" else 256
    return lambda pairs: encoder.predict(pairs, batch_size=size).tolist()


def _cross_encoder_in(dtype: str, attention: str = "sdpa") -> Callable[[str, str], Score]:
    settings = {"dtype": dtype, "attn_implementation": attention}
    return lambda model, device: _cross_encoder(model, device, model_kwargs=settings)


def _exported(model: str, device: str, backend: str) -> str:
    """The model in a backend's format; exported once for all peers, which start in turn."""
    from sentence_transformers import CrossEncoder

    folder = Path(sys.argv[3]) / f"{Path(model).name}-{backend}"
    if not folder.exists():
        CrossEncoder(model, device=device, backend=backend).save_pretrained(str(folder))
    return str(folder)


def _session_options() -> Any:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    # onnxruntime counts the machine's cores, and threads that share one spin against each other
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return options


def _onnx(model: str, device: str, file_name: str = "model.onnx") -> Score:
    kwargs = {"session_options": _session_options(), "file_name": f"onnx/{file_name}"}
    return _cross_encoder(
        _exported(model, device, "onnx"), device, backend="onnx", model_kwargs=kwargs
    )


def _onnx_int8(model: str, device: str, *, per_channel: bool) -> Score:
    """Weights in 8 bits, activations too as they come, with one scale for each tensor."""
    return _onnx(model, device, Path(_quantized_onnx(model, device, per_channel)).name)


def _quantized_onnx(model: str, device: str, per_channel: bool) -> str:
    """The file with weights in 8 bits, with a scale for each output or for each tensor."""
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    folder = _exported(model, device, "onnx")
    suffix = f"int8_{'channel' if per_channel else 'tensor'}"
    file = Path(folder) / "onnx" / f"model_{suffix}.onnx"
    if not file.exists():
        settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=per_channel)
        encoder = CrossEncoder(
            folder, device=device, backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"}
        )
        export_dynamic_quantized_onnx_model(encoder, settings, folder, file_suffix=suffix)
    return str(file)


def _openvino(folder: str, device: str, precision: str = "f32") -> Score:
    # told, because OpenVINO asks the processor itself, and takes bfloat16 wherever it finds it
    kwargs = {"ov_config": {"INFERENCE_PRECISION_HINT": precision}}
    return _cross_encoder(folder, device, backend="openvino", model_kwargs=kwargs)


def _openvino_int8(model: str, device: str) -> Score:
    """Weights and activations in 8 bits, the latter with scales from texts of another kind."""
    folder = Path(sys.argv[3]) / f"{Path(model).name}-openvino-int8"
    if not folder.exists():
        _quantize_openvino(model, device, folder)
    return _openvino(str(folder), device)


def _quantize_openvino(model: str, device: str, folder: Path) -> None:
    import nncf
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(_exported(model, device, "openvino"), device=device, backend="openvino",
                           max_length=_MAX_LENGTH)  # fmt: skip
    ours: Any = encoder.model
    ours = getattr(ours, "auto_model", ours)
    names = {name for port in ours.model.inputs for name in port.get_names()}

    def tokenized(pair: tuple[str, str]) -> dict[str, Any]:
        tokens = encoder.tokenizer(*pair, truncation=True, max_length=_MAX_LENGTH,
                                   return_tensors="np")  # fmt: skip
        return {name: tokens[name] for name in names}

    ours.model = nncf.quantize(
        ours.model,
        nncf.Dataset(_calibration_pairs(), tokenized),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    encoder.save_pretrained(str(folder))


def _calibration_pairs() -> list[tuple[str, str]]:
    """Paragraphs of Python's reference, asked about their own topics."""
    from pydoc_data.topics import topics

    return [(f"what is {name}?", text[:1_500]) for name, text in list(topics.items())[:60]]


def _flashrank(model: str, device: str) -> Score:
    """FlashRank's own scoring of one list, on these weights in 8 bits."""
    from flashrank import Ranker, RerankRequest
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    ranker = Ranker.__new__(Ranker)
    ranker.session = InferenceSession(
        _quantized_onnx(model, device, per_channel=False), _session_options()
    )
    ranker.logger = logging.getLogger("flashrank")
    ranker.llm_model = None
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    padding = json.loads((Path(model) / "config.json").read_text()).get("pad_token_id") or 0
    tokenizer.enable_truncation(max_length=_MAX_LENGTH)
    tokenizer.enable_padding(pad_id=padding)
    ranker.tokenizer = tokenizer

    def score(pairs: Pairs) -> None:
        passages = [{"id": number, "text": text} for number, (_, text) in enumerate(pairs)]
        ranker.rerank(RerankRequest(query=pairs[0][0], passages=passages))

    return score


def _flag_embedding(model: str, device: str, **settings: Any) -> Score:
    from FlagEmbedding import FlagLLMReranker, FlagReranker
    from transformers import AutoConfig

    is_decoder = AutoConfig.from_pretrained(model).model_type == "gemma"
    kind = FlagLLMReranker if is_decoder else FlagReranker
    reranker = kind(model, devices=device, max_length=_MAX_LENGTH, **settings)
    return lambda pairs: list(reranker.compute_score(pairs))


def _vllm(model: str, _device: str) -> Score:
    from vllm import LLM

    llm = LLM(
        model,
        runner="pooling",
        dtype="bfloat16",
        max_model_len=_MAX_LENGTH,
        # other peers are on the device too
        gpu_memory_utilization=0.3,
    )
    return lambda pairs: [
        output.outputs.score for output in llm.score([q for q, _ in pairs], [p for _, p in pairs])
    ]


def _infinity(model: str, device: str) -> Score:
    from infinity_emb import EngineArgs, SyncEngineArray

    names = {"model_name_or_path": model, "served_model_name": "reranker"}
    settings = {"engine": "torch", "device": device, "batch_size": 128, "dtype": "bfloat16"}
    array = SyncEngineArray.from_args([EngineArgs(**names, **settings)])

    def score(pairs: Pairs) -> list[float]:
        scores = [0.0] * len(pairs)
        calls = []
        for query in dict.fromkeys(query for query, _ in pairs):
            numbers = [n for n, (other, _) in enumerate(pairs) if other == query]
            texts = [pairs[n][1] for n in numbers]
            calls.append(
                (numbers, array.rerank(model="reranker", query=query, docs=texts, raw_scores=True))
            )
        for numbers, future in calls:
            ranking, _ = future.result()
            for entry in ranking:
                scores[numbers[entry.index]] = entry.relevance_score
        return scores

    return score


def _llama_index(model: str, device: str) -> Score:
    from llama_index.core.postprocessor import SentenceTransformerRerank
    from llama_index.core.schema import NodeWithScore, TextNode

    reranker = SentenceTransformerRerank(model=model, top_n=10_000, device=device)

    def score(pairs: Pairs) -> None:
        nodes = [NodeWithScore(node=TextNode(text=passage)) for _, passage in pairs]
        reranker.postprocess_nodes(nodes, query_str=pairs[0][0])

    return score


def _langchain(model: str, device: str) -> Score:
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document

    encoder = HuggingFaceCrossEncoder(model_name=model, model_kwargs={"device": device})
    reranker = CrossEncoderReranker(model=encoder, top_n=10_000)

    def score(pairs: Pairs) -> None:
        documents = [Document(passage) for _, passage in pairs]
        reranker.compress_documents(documents, pairs[0][0])

    return score


# name, which ends with the precision → (what must be installed, how to make it for a model on a
# device)
Peers = dict[str, tuple[tuple[str, ...], Callable[[str, str], Score]]]

_ONNX = ("sentence-transformers", "optimum-onnx", "onnxruntime")
_OPENVINO = ("sentence-transformers", "optimum-intel", "openvino")

CPU_PEERS: Peers = {
    "engine float32": ((), lambda m, d: _engine(m, d, "float32")),
    "engine bfloat16": ((), lambda m, d: _engine(m, d, "bfloat16")),
    "engine int8": ((), lambda m, d: _engine(m, d, "int8")),
    "sentence-transformers float32": (("sentence-transformers",), _cross_encoder_in("float32")),
    "sentence-transformers bfloat16": (("sentence-transformers",), _cross_encoder_in("bfloat16")),
    "sentence-transformers onnx float32": (_ONNX, _onnx),
    "sentence-transformers openvino float32": (
        _OPENVINO,
        lambda m, d: _openvino(_exported(m, d, "openvino"), d),
    ),
    # what OpenVINO takes by itself on such a processor
    "sentence-transformers openvino bfloat16": (
        _OPENVINO,
        lambda m, d: _openvino(_exported(m, d, "openvino"), d, "bf16"),
    ),
    "sentence-transformers onnx int8": (
        _ONNX,
        lambda m, d: _onnx_int8(m, d, per_channel=False),
    ),
    "sentence-transformers onnx per channel int8": (
        _ONNX,
        lambda m, d: _onnx_int8(m, d, per_channel=True),
    ),
    "sentence-transformers openvino int8": ((*_OPENVINO, "nncf"), _openvino_int8),
    "FlashRank int8": (("flashrank", "onnxruntime", "optimum-onnx"), _flashrank),
    # what these three compute a float32 checkpoint in, on a CPU
    "FlagEmbedding float32": (("FlagEmbedding",), _flag_embedding),
    "LlamaIndex SentenceTransformerRerank float32": (
        ("llama-index-core", "sentence-transformers"),
        _llama_index,
    ),
    "LangChain CrossEncoderReranker float32": (
        ("langchain-classic", "langchain-community", "sentence-transformers"),
        _langchain,
    ),
}
# these take any decoder; sentence-transformers takes those that it has saved itself
GPU_PEERS: Peers = {
    "engine float32": CPU_PEERS["engine float32"],
    "engine bfloat16": CPU_PEERS["engine bfloat16"],
    "engine float16": ((), lambda m, d: _engine(m, d, "float16")),
    "FlagEmbedding float16": (
        ("FlagEmbedding",),
        lambda m, d: _flag_embedding(m, d, use_fp16=True),
    ),
    "vLLM bfloat16": (("vllm",), _vllm),
}
GPU_ENCODER_PEERS: Peers = {
    "sentence-transformers bfloat16": CPU_PEERS["sentence-transformers bfloat16"],
    "sentence-transformers float16": (("sentence-transformers",), _cross_encoder_in("float16")),
    "sentence-transformers flash_attention_2 bfloat16": (
        ("sentence-transformers", "flash-attn"),
        _cross_encoder_in("bfloat16", "flash_attention_2"),
    ),
    "infinity bfloat16": (("infinity-emb",), _infinity),
}
PEERS = {**CPU_PEERS, **GPU_PEERS, **GPU_ENCODER_PEERS}


def precision_of(name: str) -> str:
    """What a peer computes in."""
    return name.split()[-1]


def main() -> None:
    """Make the peer that the arguments name, say so, and score whatever comes in."""
    name, model, _, device = sys.argv[1:5]
    if len(sys.argv) > 5:
        # before any library counts the cores
        os.sched_setaffinity(0, {int(sys.argv[5])})
    packages, make = PEERS[name]
    answers = sys.stdout
    # libraries print what they like; answers stay alone on their stream
    sys.stdout = sys.stderr
    found = {package: version(package) for package in (*packages, "torch", "transformers")}
    score = make(model, device)
    print(json.dumps({"versions": found}), file=answers, flush=True)
    for line in sys.stdin:
        pairs = [tuple(pair) for pair in json.loads(line)]
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score(pairs)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"seconds": spent, "scores": scores}), file=answers, flush=True)


if __name__ == "__main__":
    main()
