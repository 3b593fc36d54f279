"""The bytes of clients: what each row of ``docs/clients.md`` sends, sent again.

``recordings.json`` has what the libraries send, written by ``record_clients.py`` while
``test_clients.py`` saw them read the answers. Programs are here as their public sources build their
requests: method, path, headers and body; and what they read of the answer.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.wire.paths import PATHS
from serving.conftest import probability
from serving.fake_engine import FakeEngine
from serving.live import live_server
from serving.test_clients import BEST, CLIENTS, DOCUMENTS, KEY, LOGITS, NAMES, QUERY, ROWS, Ranked

pytestmark = pytest.mark.enable_socket

RECORDINGS: dict[str, Any] = json.loads(
    Path(__file__).with_name("recordings.json").read_text("utf-8")
)
ALL = [*BEST, 0]
JSON = "Content-Type: application/json"
BEARER = f"Authorization: Bearer {KEY}"
# what the HTTP libraries of these programs send unasked
GO = ["User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip"]
REQUESTS = [
    "User-Agent: python-requests/2.32.3",
    "Accept-Encoding: gzip, deflate",
    "Accept: */*",
    "Connection: keep-alive",
]
AIOHTTP = [
    "Accept: */*",
    "Accept-Encoding: gzip, deflate",
    "User-Agent: Python/3.12 aiohttp/3.11.11",
]
HTTPX = [
    "Accept: */*",
    "Accept-Encoding: gzip, deflate",
    "Connection: keep-alive",
    "User-Agent: python-httpx/0.28.1",
]
NODE = [
    "accept: */*",
    "accept-language: *",
    "sec-fetch-mode: cors",
    "user-agent: node",
    "accept-encoding: gzip, deflate",
]
AXIOS = [
    "Accept: application/json, text/plain, */*",
    JSON,
    "User-Agent: axios/1.8.2",
    "Accept-Encoding: gzip, compress, deflate, br",
]
OKHTTP = ["Connection: Keep-Alive", "Accept-Encoding: gzip", "User-Agent: okhttp/4.12.0"]
JDK = [
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Upgrade: h2c",
    "User-Agent: Java-http-client/21.0.5",
]
AWS = [
    "Content-Type: application/json",
    "X-Amz-Date: 20261201T120000Z",
    "X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20261201/us-west-2/bedrock/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6",
]
FERN = [
    "Accept: */*",
    "Content-Type: application/json",
    f"authorization: Bearer {KEY}",
    "x-fern-language: JavaScript",
    "x-fern-runtime: node",
    "accept-encoding: gzip, deflate",
]
APACHE = ["Connection: Keep-Alive", "User-Agent: Apache-HttpAsyncClient/4.1.5 (Java/21.0.5)"]

MODEL = {"model": "fake"}
ASKED = {"query": QUERY, "documents": DOCUMENTS}
TEXTS = {"query": QUERY, "texts": DOCUMENTS}
BEDROCK_QUERY = [{"type": "TEXT", "textQuery": {"text": QUERY}}]
BEDROCK_SOURCES = [
    {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}
    for text in DOCUMENTS
]
PASSAGES = {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS]}


def send(url: str, request_line: str, headers: list[str], body: Any = None) -> tuple[int, Any]:
    """Send one request byte by byte as given, with Host and Content-Length."""
    host, port = url.removeprefix("http://").split(":")
    content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    lines = [f"{request_line} HTTP/1.1", f"Host: {host}:{port}", *headers]
    is_chunked = any(line.lower() == "transfer-encoding: chunked" for line in headers)
    if is_chunked:
        content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    elif body is not None:
        lines.append(f"Content-Length: {len(content)}")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        response = http.client.HTTPResponse(connection)
        response.begin()
        read = response.read()
    is_json = response.headers.get_content_type() == "application/json"
    return response.status, json.loads(read) if is_json else read


def results(body: Any) -> Ranked:
    return [(result["index"], result["relevance_score"]) for result in body["results"]]


def with_documents(body: Any) -> Ranked:
    assert all(
        result["document"]["text"] == DOCUMENTS[result["index"]] for result in body["results"]
    )
    return results(body)


def by_index(body: Any) -> Ranked:
    return sorted(results(body))


def with_usage(body: Any) -> Ranked:
    assert body["usage"]["total_tokens"] > 0
    return results(body)


def data(body: Any) -> Ranked:
    return [(result["index"], result["relevance_score"]) for result in body["data"]]


def listed(body: Any) -> Ranked:
    return [(result["index"], result["score"]) for result in body]


def rankings(body: Any) -> Ranked:
    return [(result["index"], result["logit"]) for result in body["rankings"]]


def output(body: Any) -> Ranked:
    return results(body["output"])


def positions(body: Any) -> Ranked:
    assert [each["document"] for each in body["scores"]] == DOCUMENTS
    return [(index, each["score"]) for index, each in enumerate(body["scores"])]


def meta_tokens(body: Any) -> Ranked:
    assert body["meta"]["tokens"]["input_tokens"] > 0
    assert body["meta"]["tokens"]["output_tokens"] == 0
    return results(body)


def search_units(body: Any) -> Ranked:
    assert body["meta"]["billed_units"]["search_units"] == 1
    return results(body)


def relevance(body: Any) -> Ranked:
    return [(result["index"], result["relevanceScore"]) for result in body["results"]]


def scored(body: Any) -> Ranked:
    assert body["input_token_count"] > 0
    return [(result["index"], result["score"]) for result in body["results"]]


def pinecone(body: Any) -> Ranked:
    assert body["usage"]["rerank_units"] == 1
    assert all(item["document"]["text"] == DOCUMENTS[item["index"]] for item in body["data"])
    return [(item["index"], item["score"]) for item in body["data"]]


def labels(body: Any) -> Ranked:
    return [(index, each["score"]) for index, each in enumerate(body)]


def bare(body: Any) -> Ranked:
    return list(enumerate(body))


def only_known_fields(body: Any) -> Ranked:
    """Elasticsearch throws on any other field of a result."""
    assert all(
        result.keys() <= {"index", "relevance_score", "document"} for result in body["results"]
    )
    return results(body)


@dataclass(frozen=True)
class Program:
    """A program without a library.

    :param source: where its request is built.
    :param path: below the page's base URL.
    :param reads: what it reads of the answer: index and score of each document.
    :param order: of its documents.
    :param before: what it asks first: path, and a check of status and answer.
    """

    source: str
    path: str
    headers: list[str]
    body: dict[str, Any]
    reads: Callable[[Any], Ranked] = results
    order: tuple[int, ...] = tuple(ALL)
    before: tuple[tuple[str, Callable[[int, Any], bool]], ...] = ()


def _is_ok(status: int, _: Any) -> bool:
    return 200 <= status <= 299


def _is_tei_reranker(status: int, body: Any) -> bool:
    return status == 200 and "reranker" in body["model_type"] and body["max_client_batch_size"] > 0


PROGRAMS = {
    "Open WebUI": Program(
        "open-webui/open-webui: retrieval/models/external.py",
        "",
        [*REQUESTS, JSON, BEARER, "X-OpenWebUI-User-Name: J%C3%BCrgen"],
        {**MODEL, **ASKED, "top_n": 4},
        by_index,
        (0, 1, 2, 3),
    ),
    "Dify, OpenAI-API-compatible": Program(
        "langgenius/dify-plugin-sdks: interfaces/model/openai_compatible/rerank.py",
        "/rerank",
        [*REQUESTS, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3, "return_documents": True},
        with_documents,
        tuple(BEST),
    ),
    "Dify, Text Embedding Inference": Program(
        "langgenius/dify-official-plugins: models/huggingface_tei",
        "/rerank",
        [*REQUESTS, JSON],
        TEXTS,
        listed,
        before=(("/info", _is_tei_reranker),),
    ),
    "Dify, Xinference": Program(
        "langgenius/dify-official-plugins: models/xinference",
        "/v1/rerank",
        [*REQUESTS, JSON],
        {**MODEL, **ASKED, "top_n": 3, "max_chunks_per_doc": None, "return_documents": True},
        with_documents,
        tuple(BEST),
        (
            ("/v1/cluster/auth", lambda status, _: status == 404),
            ("/v1/models/fake", lambda _, body: body["model_type"] == "rerank"),
        ),
    ),
    "LibreChat": Program(
        "danny-avila/agents: src/tools/search/rerankers.ts",
        "",
        [*AXIOS, BEARER],
        {
            "model": "jina-reranker-v2-base-multilingual",
            **ASKED,
            "top_n": 3,
            "return_documents": True,
        },
        with_documents,
        tuple(BEST),
    ),
    "RAGFlow, Xinference": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py",
        "",
        [*REQUESTS, JSON, "accept: application/json", BEARER],
        {**MODEL, "query": QUERY, "return_documents": "true", "return_len": "true", **ASKED},
    ),
    "RAGFlow, OpenAI-API-Compatible": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py",
        "",
        [*REQUESTS, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 4},
        with_usage,
    ),
    "RAGFlow, NVIDIA": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py",
        "reranking",
        [*REQUESTS, "accept: application/json", JSON, BEARER],
        {**MODEL, **PASSAGES, "truncate": "END", "top_n": 4},
        rankings,
    ),
    "Weaviate, reranker-transformers": Program(
        "weaviate/weaviate: modules/reranker-transformers/clients (no header at all)",
        "/rerank",
        GO,
        {**ASKED, "property": ""},
        positions,
        (0, 1, 2, 3),
        (("/.well-known/ready", _is_ok), ("/meta", lambda _, body: body["model_id"] == "fake")),
    ),
    "Weaviate, reranker-nvidia": Program(
        "weaviate/weaviate: modules/reranker-nvidia/clients/ranker.go",
        "/v1/retrieval/nvidia/reranking",
        [*GO, BEARER, "Accept: application/json", JSON],
        {**MODEL, **PASSAGES},
        rankings,
    ),
    "Weaviate, reranker-cohere": Program(
        "weaviate/weaviate: modules/reranker-cohere/clients/ranker.go",
        "/v2/rerank",
        [*GO, BEARER, JSON, "Request-Source: unspecified:weaviate"],
        {**ASKED, **MODEL, "return_documents": False},
    ),
    "Weaviate, reranker-jinaai": Program(
        "weaviate/weaviate: modules/reranker-jinaai/clients/ranker.go",
        "/v1/rerank",
        [*GO, BEARER, JSON],
        {**ASKED, **MODEL, "return_documents": False},
    ),
    "LightRAG, cohere": Program(
        "HKUDS/LightRAG: lightrag/rerank.py",
        "",
        [*AIOHTTP, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "LightRAG, jina": Program(
        "HKUDS/LightRAG: lightrag/rerank.py",
        "",
        [*AIOHTTP, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3, "return_documents": False},
        order=tuple(BEST),
    ),
    "LightRAG, aliyun": Program(
        "HKUDS/LightRAG: lightrag/rerank.py",
        "",
        [*AIOHTTP, JSON, BEARER],
        {**MODEL, "input": ASKED, "parameters": {"top_n": 3, "return_documents": False}},
        output,
        tuple(BEST),
    ),
    "FastGPT": Program(
        "labring/FastGPT: packages/service/core/ai/rerank/index.ts",
        "",
        [*AXIOS, BEARER],
        {**MODEL, **ASKED},
        meta_tokens,
    ),
    "Cherry Studio": Program(
        "CherryHQ/cherry-studio: reranker/GeneralReranker",
        "/rerank",
        [*NODE, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "Continue, vLLM": Program(
        "continuedev/continue: core/llm/llms/Vllm.ts",
        "rerank",
        [*NODE, "content-type: application/json", BEARER, "x-api-key: the-key"],
        {**MODEL, **ASKED},
        by_index,
        (0, 1, 2, 3),
    ),
    "Continue, Text Embeddings Inference": Program(
        "continuedev/continue: core/llm/llms/HuggingFaceTEI.ts",
        "rerank",
        [*NODE, "content-type: application/json"],
        {
            **TEXTS,
            "return_text": False,
            "raw_scores": False,
            "truncation_direction": "Right",
            "truncate": True,
        },
        listed,
        before=(("info", _is_tei_reranker),),
    ),
    "Milvus, vLLM ranker": Program(
        "milvus-io/milvus: internal/util/function/models/vllm/vllm_client.go",
        "/rerank",
        [*GO, JSON],
        {**ASKED, "truncate_prompt_tokens": 100},
        by_index,
        (0, 1, 2, 3),
    ),
    "Milvus, TEI ranker": Program(
        "milvus-io/milvus: internal/util/function/models/tei",
        "/rerank",
        [*GO, JSON],
        {**TEXTS, "truncate": True, "truncation_direction": "Right"},
        listed,
    ),
    "Milvus, SiliconFlow ranker": Program(
        "milvus-io/milvus: internal/util/function/models/siliconflow",
        "",
        [*GO, BEARER, JSON],
        {**MODEL, **ASKED, "max_chunks_per_doc": 5, "overlap_tokens": 50},
        meta_tokens,
    ),
    "Elasticsearch, Cohere": Program(
        "elastic/elasticsearch: inference/services/cohere",
        "",
        [*APACHE, JSON, BEARER, "Request-Source: unspecified:elasticsearch"],
        {**MODEL, **ASKED, "return_documents": False, "top_n": 3},
        only_known_fields,
        tuple(BEST),
    ),
    "Elasticsearch, Hugging Face": Program(
        "elastic/elasticsearch: HuggingFaceRerankRequestEntity.java",
        "",
        [*APACHE, JSON, BEARER],
        {**TEXTS, "return_text": False, "top_n": 3},
        listed,
        tuple(BEST),
    ),
    "OpenSearch, Cohere connector": Program(
        "opensearch-project/ml-commons: docs/remote_inference_blueprints/cohere_connector",
        "",
        [*APACHE, "Content-Type: application/json; charset=UTF-8", BEARER],
        {**ASKED, **MODEL, "top_n": 4},
    ),
    "SGLang's clients": Program(
        "sgl-project/sglang: serving_rerank.py (a list)",
        "/v1/rerank",
        [*REQUESTS, JSON],
        {**MODEL, **ASKED, "return_documents": False},
        listed,
    ),
    "llama.cpp's clients": Program(
        "ggml-org/llama.cpp: tools/server/README.md, /reranking",
        "/v1/reranking",
        [*HTTPX, JSON],
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "Lemonade's clients": Program(
        "lemonade-sdk/lemonade: /api/v1/reranking",
        "/api/v1/reranking",
        [*HTTPX, JSON],
        {**MODEL, **ASKED},
    ),
    "OPEA, OVMS reranking": Program(
        "opea-project/GenAIComps: comps/rerankings (OVMS)",
        "/v3/rerank",
        [*AIOHTTP, JSON],
        {**MODEL, **ASKED},
        before=(("/v2/health/ready", _is_ok),),
    ),
    "MaxKB, vLLM": Program(
        "1Panel-dev/MaxKB: vllm_model_provider/model/reranker.py (cohere's client)",
        "/v2/rerank",
        [*HTTPX, BEARER, "content-type: application/json"],
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "WeKnora": Program(
        "Tencent/WeKnora: internal/models/rerank",
        "/rerank",
        [*GO, JSON, BEARER],
        {**MODEL, **ASKED, "truncate_prompt_tokens": 511},
    ),
    "new-api, Jina channel": Program(
        "QuantumNous/new-api: relay/channel/jina",
        "/v1/rerank",
        [*GO, JSON, BEARER, "Accept: application/json"],
        {**ASKED, **MODEL, "top_n": 3, "return_documents": True},
        with_usage,
        tuple(BEST),
    ),
    "n8n, OpenAI-compatible reranker": Program(
        "a community node: {base}/v1/rerank",
        "/v1/rerank",
        [*AXIOS, BEARER],
        {**MODEL, **ASKED, "top_n": "3"},
        order=tuple(BEST),
    ),
    "Kotaemon, TEI": Program(
        "Cinnamon/kotaemon: rerankings/tei_fast_rerank.py",
        "/rerank",
        [*REQUESTS, JSON],
        {**TEXTS, "is_truncated": True},
        listed,
    ),
    "DB-GPT, TEI": Program(
        "eosphoros-ai/DB-GPT: rag/embedding/rerank.py",
        "",
        [*REQUESTS, JSON, BEARER],
        TEXTS,
        listed,
    ),
    "R2R": Program(
        "SciPhi-AI/R2R: providers/embeddings/litellm.py",
        "/rerank",
        [*REQUESTS, JSON],
        {"model-id": "fake", **TEXTS},
        listed,
    ),
    "LangChain4j `CohereScoringModel`": Program(
        "langchain4j/langchain4j: langchain4j-cohere",
        "rerank",
        [*OKHTTP, "accept: application/json", BEARER, "Content-Type: application/json"],
        {**MODEL, **ASKED},
        search_units,
    ),
    "LangChain4j `XinferenceScoringModel`": Program(
        "langchain4j/langchain4j-community: langchain4j-community-xinference",
        "v1/rerank",
        [*OKHTTP, "Content-Type: application/json"],
        {**MODEL, **ASKED, "return_documents": False},
        meta_tokens,
    ),
    "LangChain4j `JinaScoringModel`": Program(
        "langchain4j/langchain4j: langchain4j-jina",
        "v1/rerank",
        [*OKHTTP, BEARER, "Content-Type: application/json"],
        {**MODEL, **ASKED, "return_documents": False},
        with_usage,
    ),
    "LangChain4j `VoyageAiScoringModel`": Program(
        "langchain4j/langchain4j: langchain4j-voyage-ai",
        "rerank",
        [*JDK, JSON, BEARER],
        {**MODEL, **ASKED},
        data,
    ),
    "SageMaker endpoint": Program(
        "AWS: the container's contract, /ping and /invocations",
        "/invocations",
        ["Accept: */*", JSON, "User-Agent: AmazonSageMaker"],
        {**ASKED, "top_n": 3},
        order=tuple(BEST),
        before=(("/ping", _is_ok),),
    ),
    "Azure AI, Cohere": Program(
        "Azure AI Foundry: /providers/cohere/v2/rerank",
        "/providers/cohere/v2/rerank",
        [*HTTPX, JSON, f"api-key: {KEY}"],
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "RAGFlow, SILICONFLOW": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py",
        "",
        [*REQUESTS, "accept: application/json", "content-type: application/json", BEARER],
        {
            **MODEL,
            **ASKED,
            "top_n": 4,
            "return_documents": False,
            "max_chunks_per_doc": 1024,
            "overlap_tokens": 80,
        },
        meta_tokens,
    ),
    "Haystack `HuggingFaceTEIRanker`": Program(
        "deepset-ai/haystack: haystack/components/rankers/hugging_face_tei.py",
        "/rerank",
        [*HTTPX, JSON, BEARER],
        {**TEXTS, "raw_scores": False, "truncate": True, "truncation_direction": "Right"},
        listed,
    ),
    "Flowise, Azure Rerank": Program(
        "FlowiseAI/Flowise: nodes/retrievers/AzureRerankRetriever/AzureRerank.ts",
        "",
        [*AXIOS, f"api-key: {KEY}"],
        {**MODEL, "top_n": 3, "max_chunks_per_doc": 10, "return_documents": False, **ASKED},
        order=tuple(BEST),
    ),
    "mem0, OpenAI-compatible": Program(
        "mem0ai/mem0: mem0/reranker/openai_compatible_reranker.py",
        "/rerank",
        [*HTTPX, JSON, BEARER],
        {**ASKED, "top_n": 3, **MODEL},
        order=tuple(BEST),
    ),
    "mem0, TEI": Program(
        "mem0ai/mem0: mem0/reranker/tei_reranker.py",
        "/rerank",
        [*REQUESTS, JSON],
        TEXTS,
        listed,
    ),
    "mem0, Bailian": Program(
        "mem0ai/mem0: mem0/reranker/bailian_reranker.py (it sends this name of a model)",
        "",
        [*REQUESTS, BEARER, JSON],
        {"model": "qwen3-rerank", **ASKED, "top_n": 3, "instruct": "Retrieve what answers it."},
        order=tuple(BEST),
    ),
    "Agno, SiliconFlow": Program(
        "agno-agi/agno: libs/agno/agno/knowledge/reranker/siliconflow.py",
        "/rerank",
        [*HTTPX, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3, "return_documents": False, "overlap_tokens": 80},
        order=tuple(BEST),
    ),
    "Spring AI Alibaba, DashScope": Program(
        "alibaba/spring-ai-alibaba: dashscope/api/DashScopeApi.java",
        "/api/v1/services/rerank/text-rerank/text-rerank",
        [*JDK, BEARER, JSON],
        {**MODEL, "input": ASKED, "parameters": {"top_n": 3, "return_documents": False}},
        output,
        tuple(BEST),
    ),
    "Dify, Ollama-like": Program(
        "langgenius/dify-official-plugins: models/ollama, /api/rerank",
        "/api/rerank",
        [*REQUESTS, JSON],
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "RAGFlow, LocalAI": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py (it joins /rerank to the host)",
        "/rerank",
        [*REQUESTS, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 4},
        by_index,
        (0, 1, 2, 3),
    ),
    "RAGFlow, GPUStack": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py",
        "/v1/rerank",
        [*REQUESTS, "accept: application/json", "content-type: application/json", BEARER],
        {**MODEL, **ASKED, "top_n": 4},
    ),
    "RAGFlow, HuggingFace": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py (http:// is its own)",
        "/rerank",
        [*REQUESTS, JSON],
        {**TEXTS, "raw_scores": False, "truncate": True},
        listed,
    ),
    "RAGFlow, vLLM": Program(
        "infiniflow/ragflow: rag/llm/rerank_model.py (cohere's client)",
        "/v1/rerank",
        [*HTTPX, BEARER, "content-type: application/json", "X-Fern-Language: Python"],
        {**MODEL, **ASKED, "top_n": 4, "return_documents": False},
    ),
    "Dify, Jina": Program(
        "langgenius/dify-official-plugins: models/jina (it reads texts that it did not ask for)",
        "/rerank",
        [*HTTPX, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3},
        with_documents,
        tuple(BEST),
    ),
    "Dify, LocalAI": Program(
        "langgenius/dify-official-plugins: models/localai",
        "/rerank",
        [*REQUESTS, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": None},
    ),
    "Onyx, LiteLLM provider": Program(
        "onyx-dot-app/onyx: natural_language_processing/search_nlp_models.py",
        "",
        [*HTTPX, JSON, BEARER],
        {**MODEL, **ASKED},
        by_index,
        (0, 1, 2, 3),
    ),
    "Milvus, Cohere ranker": Program(
        "milvus-io/milvus: internal/util/function/models/cohere",
        "",
        [*GO, "accept: application/json", JSON, f"Authorization: bearer {KEY}"],
        {**MODEL, **ASKED, "max_tokens_per_doc": 100},
        by_index,
        (0, 1, 2, 3),
    ),
    "Milvus, VoyageAI ranker": Program(
        "milvus-io/milvus: internal/util/function/models/voyageai",
        "",
        [*GO, JSON, BEARER],
        {**MODEL, **ASKED, "truncation": True},
        data,
    ),
    "Milvus, Ali ranker": Program(
        "milvus-io/milvus: internal/util/function/models/ali",
        "",
        [*GO, JSON, BEARER],
        {**MODEL, "input": ASKED},
        output,
    ),
    "Milvus, Hugging Face ranker": Program(
        "milvus-io/milvus: internal/util/function/models/huggingface",
        "/hf-inference/models/fake/pipeline/sentence-similarity",
        [*GO, JSON, BEARER],
        {"inputs": {"source_sentence": QUERY, "sentences": DOCUMENTS}},
        bare,
        (0, 1, 2, 3),
    ),
    "n8n, Voyage reranker": Program(
        "n8n-io/n8n: nodes/rerankers/RerankerVoyageAi (npm voyageai)",
        "/rerank",
        FERN,
        {**ASKED, **MODEL, "top_k": 3, "return_documents": False, "truncation": True},
        data,
        tuple(BEST),
    ),
    "n8n, Azure Cohere reranker": Program(
        "n8n-io/n8n: nodes/rerankers/RerankerAzureCohere (npm cohere-ai)",
        "/providers/cohere/v2/rerank",
        FERN,
        {**MODEL, **ASKED, "top_n": 3},
        order=tuple(BEST),
    ),
    "Elasticsearch, NVIDIA": Program(
        "elastic/elasticsearch: inference/services/nvidia/request/rerank",
        "",
        [*APACHE, JSON, BEARER],
        {**MODEL, **PASSAGES},
        rankings,
    ),
    "Elasticsearch, OpenShift AI": Program(
        "elastic/elasticsearch: inference/services/openshiftai/request",
        "",
        [*APACHE, JSON, BEARER],
        {**MODEL, **ASKED, "top_n": 3, "return_documents": True},
        with_documents,
        tuple(BEST),
    ),
    "Elasticsearch, IBM watsonx": Program(
        "elastic/elasticsearch: inference/services/ibmwatsonx/request",
        "/ml/v1/text/rerank?version=2024-05-02",
        [*APACHE, JSON, BEARER],
        {
            "model_id": "fake",
            "query": QUERY,
            "project_id": "a-project",
            "inputs": PASSAGES["passages"],
            "parameters": {
                "truncate_input_tokens": 100,
                "return_options": {"inputs": True, "top_n": 3},
            },
        },
        scored,
        tuple(BEST),
    ),
    "Elasticsearch, custom service": Program(
        "elastic/elasticsearch: inference/services/custom (the template is the user's)",
        "",
        [*APACHE, JSON, BEARER],
        {**ASKED, **MODEL, "top_n": 3},
        order=tuple(BEST),
    ),
    "LiteLLM `watsonx/`": Program(
        "BerriAI/litellm: llms/watsonx/rerank (WATSONX_TOKEN is the key)",
        "/ml/v1/text/rerank?version=2024-03-13",
        [*HTTPX, JSON, BEARER],
        {
            "query": QUERY,
            "inputs": PASSAGES["passages"],
            "parameters": {"return_options": {"top_n": 3, "inputs": False}},
            "model_id": "fake",
            "project_id": "a-project",
        },
        scored,
        tuple(BEST),
    ),
    "OpenSearch, SageMaker cross-encoder": Program(
        "opensearch-project/ml-commons: docs/tutorials/rerank (transformers' pipeline)",
        "/invocations",
        [*APACHE, *AWS],
        {"inputs": [{"text": QUERY, "text_pair": text} for text in DOCUMENTS]},
        labels,
        (0, 1, 2, 3),
    ),
    "OpenSearch, SageMaker with TEI": Program(
        "opensearch-project/ml-commons: docs/tutorials/rerank (bge-reranker-v2-m3)",
        "/invocations",
        [*APACHE, *AWS],
        TEXTS,
        listed,
    ),
    "OpenSearch, Bedrock connector": Program(
        "opensearch-project/ml-commons: bedrock_connector_rerank_blueprint.md",
        "",
        [*APACHE, *AWS],
        {
            "queries": BEDROCK_QUERY,
            "rerankingConfiguration": {
                "bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": "fake"}},
                "type": "BEDROCK_RERANKING_MODEL",
            },
            "sources": BEDROCK_SOURCES,
        },
        relevance,
    ),
    "OpenSearch, Cohere on Bedrock": Program(
        "opensearch-project/ml-commons: bedrock_connector_cohere_rerank_blueprint.md",
        "/model/fake/invoke",
        [*APACHE, *AWS],
        {**ASKED, "api_version": 2},
    ),
    "boto3 `bedrock-agent-runtime`": Program(
        "run-llama/llama_index: postprocessor-bedrock-rerank; langchain-aws; litellm bedrock/",
        "/rerank",
        ["Accept-Encoding: identity", "User-Agent: Boto3/1.40.1 md/Botocore#1.40.1", *AWS],
        {
            "queries": BEDROCK_QUERY,
            "sources": BEDROCK_SOURCES,
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": {
                    "numberOfResults": 3,
                    "modelConfiguration": {"modelArn": "fake"},
                },
            },
        },
        relevance,
        tuple(BEST),
    ),
    "Pinecone": Program(
        "pinecone-io/pinecone-python-client: inference/inference_request_builder.py",
        "/rerank",
        ["User-Agent: python-client-7.3.0", JSON, f"Api-Key: {KEY}", "Accept: application/json"],
        {
            **MODEL,
            "query": QUERY,
            "documents": PASSAGES["passages"],
            "rank_fields": ["text"],
            "return_documents": True,
            "top_n": 3,
            "parameters": {"truncate": "END"},
        },
        pinecone,
        tuple(BEST),
    ),
    "ZeroEntropy": Program(
        "zeroentropy-ai/zeroentropy-python: resources/models.py",
        "/models/rerank",
        [*HTTPX, JSON, BEARER],
        {**ASKED, **MODEL, "top_n": 3},
        order=tuple(BEST),
    ),
}
PAGE = dict(ROWS)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live_server(dict.fromkeys(NAMES, FakeEngine())) as url:
        yield url


@pytest.fixture(scope="module")
def with_key() -> Iterator[str]:
    settings = ServerSettings(api_keys=(KEY,))
    with live_server(dict.fromkeys(NAMES, FakeEngine()), settings) as url:
        yield url


def test_every_row_of_the_page_has_its_bytes() -> None:
    programs = {name.removesuffix(" (*request*)") for name in PAGE if "(*request*)" in name}
    assert programs == set(PROGRAMS)
    assert set(RECORDINGS) == {name for name in PAGE if "(*request*)" not in name}
    assert len(PAGE) == len(ROWS) >= 90


def check(read: Ranked, order: list[int], *, are_logits: bool) -> None:
    assert [index for index, _ in read] == order
    expected = [LOGITS[index] if are_logits else probability(LOGITS[index]) for index in order]
    assert [score for _, score in read] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_reads_the_engines_ranking(url: str, name: str) -> None:
    program, base = PROGRAMS[name], PAGE[f"{name} (*request*)"]
    for path, is_right in program.before:
        assert is_right(*send(url, f"GET {base}{path}", program.headers)), path
    status, body = send(url, f"POST {base}{program.path}", program.headers, program.body)
    assert status == 200, body
    check(program.reads(body), list(program.order), are_logits=program.reads is rankings)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_with_a_key_is_let_in(with_key: str, name: str) -> None:
    program, base = PROGRAMS[name], PAGE[f"{name} (*request*)"]
    sends_key = any(KEY in header for header in program.headers)
    request = f"POST {base}{program.path}"
    status, _ = send(with_key, request, program.headers, program.body)
    assert status == (200 if sends_key else 401)


# by the path of a request: what the libraries were seen to read
READERS: dict[str, Callable[[Any], Ranked]] = {
    "/voyage/v1/rerank": data,
    "/voyage/rerank": data,
    "/inference/v1/rerank": data,
    "/tei/rerank": listed,
    "/v1/ranking": rankings,
    "/v1/retrieval/nvidia/fake/reranking": rankings,
    "/v1/retrieval/fake/reranking": rankings,
    "/api/v1/services/rerank/text-rerank/text-rerank": output,
    "/v1/reranking": lambda body: [(result["index"], result["score"]) for result in body["data"]],
    "/v1/inference/fake": lambda body: list(enumerate(body["scores"])),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_librarys_bytes_are_answered(url: str, name: str) -> None:
    recorded = RECORDINGS[name]
    request_line = recorded["head"][0].removesuffix(" HTTP/1.1")
    status, body = send(url, request_line, recorded["head"][1:], recorded["body"])
    assert status == 200, body
    path = request_line.removeprefix("POST ")
    reads = READERS.get(path, results)
    if isinstance(body, list):
        reads = listed
    elif "data" in body and reads is results:
        reads = data
    _, order, score = CLIENTS[name]
    read = reads(body)
    are_logits = score(0.5) == 0.5
    if [index for index, _ in read] != order:
        # the library cuts the list itself
        read = read[: len(order)]
    check(read, order, are_logits=are_logits)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_librarys_key_is_let_in(with_key: str, name: str) -> None:
    recorded = RECORDINGS[name]
    request_line = recorded["head"][0].removesuffix(" HTTP/1.1")
    status, _ = send(with_key, request_line, recorded["head"][1:], recorded["body"])
    sends_key = any(KEY in header for header in recorded["head"])
    assert status == (200 if sends_key else 401)


def formats_table() -> str:
    """The paths, markers and fields of all services, as the page shows them."""
    lines, seen = ["| paths | service | told by | fields |", "|---|---|---|---|"], set()
    for paths, wires in PATHS:
        for position, wire in enumerate(wires):
            told_by = " or ".join(f"`{name}`" for name in wire.markers) if position else ""
            shown = "<br>".join(f"`{path}`" for path in paths) if not position else ""
            fields = ", ".join(f"`{name}`" for name in wire.fields)
            fields = "as above" if wire in seen else fields
            seen.add(wire)
            lines.append(f"| {shown} | {wire.name} | {told_by} | {fields} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_servers_table() -> None:
    # to mend it: write formats_table() below the page's last heading
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    assert page.endswith(formats_table())
