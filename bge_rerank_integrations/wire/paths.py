"""The paths at which the server answers the services, and the fields that they do not share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import Role, Wire, rows

_AT_THE_ROOT = (rows.COMMON, rows.WEAVIATE, rows.VOYAGE, rows.TEI, rows.CLOUDFLARE, rows.BEDROCK)

#: paths → the services that are answered there: the first one, unless a later one has a marker in
#: the body; of several, the last
PATHS: Sequence[tuple[tuple[str, ...], tuple[Wire, ...]]] = (
    (("/rerank", "/v1/rerank", "/reranking", "/v3/rerank", "/api/rerank"), _AT_THE_ROOT),
    (("/v1/reranking", "/api/v1/reranking"), (rows.MIXEDBREAD, rows.COMMON)),
    (("/v2/rerank", "/providers/cohere/v2/rerank"), (rows.COHERE,)),
    (("/score", "/v1/score", "/vllm/score", "/vllm/v1/score"), (rows.VLLM_SCORE,)),
    (("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), (rows.VLLM,)),
    (("/infinity/rerank", "/infinity/v1/rerank"), (rows.INFINITY,)),
    (("/tei/rerank",), (rows.TEI,)),
    (("/sglang/rerank", "/sglang/v1/rerank"), (rows.SGLANG,)),
    (("/voyage/rerank", "/voyage/v1/rerank"), (rows.VOYAGE,)),
    (("/jina/rerank", "/jina/v1/rerank"), (rows.JINA,)),
    (("/pinecone/rerank",), (rows.PINECONE,)),
    (("/v1/ranking", "/v1/retrieval/{model:path}/reranking"), (rows.NIM,)),
    (("/inference/v1/rerank",), (rows.FIREWORKS,)),
    (("/api/v1/services/rerank/text-rerank/text-rerank",), (rows.DASHSCOPE,)),
    (("/compatible-api/v1/reranks",), (rows.DASHSCOPE_COMMON,)),
    (("/v1/inference/{model:path}",), (rows.DEEPINFRA,)),
    (("/ml/v1/text/rerank",), (rows.WATSONX,)),
    (("/hf-inference/models/{model:path}/pipeline/sentence-similarity",), (rows.SIMILARITY,)),
    (("/weaviate/rerank",), (rows.WEAVIATE,)),
    (("/azion/ai/run/{model}",), (rows.AZION, rows.AZION_SCORE)),
    (("/client/v4/accounts/{account_id}/ai/run/@cf/baai/bge-reranker-base",), (rows.CLOUDFLARE,)),
    # Bedrock's InvokeModel for Cohere's models; ZeroEntropy's
    (("/model/{model}/invoke", "/v1/models/rerank"), (rows.COMMON,)),
    # SageMaker has one path for every body
    (
        ("/invocations",),
        (*_AT_THE_ROOT[:-1], rows.NIM, rows.VLLM_SCORE, rows.MIXEDBREAD, rows.PAIRS, rows.BEDROCK),
    ),
    # gateways and hosts with a base URL of their own
    (("/{base:path}/rerank",), _AT_THE_ROOT),
)


def _neutral_values() -> dict[str, tuple[Any, ...]]:
    # of what no row has
    neutral: dict[str, tuple[Any, ...]] = {
        "metadata": (None, [], {}),
        "return_embeddings": (None, False),
        "rewrite_query": (None, False),
    }
    wires = dict.fromkeys(wire for _, wires in PATHS for wire in wires)
    fields = {name: role for wire in wires for name, role in wire.fields.items()}
    for name, role in fields.items():
        first, dot, _ = name.partition(".")
        if role not in (Role.MODEL, Role.QUERY):
            neutral[first.removesuffix("[]")] = (None, {}, []) if dot else role.neutral
    return neutral | {marker: (None,) for wire in wires for marker in wire.markers}


#: fields that change the answer of some service, and the values that ask for what is done anyway:
#: none but null for a field that tells a service from the others on its path. Clients send them to
#: servers of other services; where a row has no such field, ignoring it would answer another
#: question.
NEUTRAL: Mapping[str, tuple[Any, ...]] = _neutral_values()
