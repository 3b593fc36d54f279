"""The wire formats: one row for each service, and the paths at which the server answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import Role, Slot, Wire

_AS_400 = {"invalid_request": 400, "empty_request": 400}

_WHOLE = {"truncated_documents": Slot.TRUNCATED_DOCUMENTS, "query_truncated": Slot.QUERY_TRUNCATED}
_USAGE = {
    "prompt_tokens": Slot.TOKENS,
    "completion_tokens": 0,
    "total_tokens": Slot.TOKENS,
    **_WHOLE,
}
_TOTAL = {"total_tokens": Slot.TOKENS, **_WHOLE}
_META = {
    "api_version": {"version": "2"},
    "billed_units": {"search_units": Slot.SEARCHES},
    "tokens": {"input_tokens": Slot.TOKENS, "output_tokens": 0},
    **_WHOLE,
}
_RANKED = {"index": Slot.INDEX, "relevance_score": Slot.SCORE, "document": {"text": Slot.TEXT}}
_BARE = {"index": Slot.INDEX, "relevance_score": Slot.SCORE, "document": Slot.TEXT}
_ERROR = {"message": Slot.MESSAGE, "type": Slot.KIND, "param": Slot.FIELD, "code": Slot.STATUS}
_OPENAI_ERROR = {"error": _ERROR}
_DETAIL = {"detail": Slot.MESSAGE}

_ASKED = {"model": Role.MODEL, "query": Role.QUERY, "documents": Role.DOCUMENTS}
_COMMON_FIELDS = {
    **_ASKED,
    "top_n": Role.TOP_N_OR_ALL,
    "return_documents": Role.RETURN_TEXTS,
    "raw_scores": Role.RAW_SCORES,
    "rank_fields": Role.RANK_FIELDS,
    "max_tokens_per_doc": Role.MAX_DOCUMENT_TOKENS,
    "truncate_prompt_tokens": Role.MAX_DOCUMENT_TOKENS_OR_ALL,
    "max_chunks_per_doc": Role.MAX_CHUNKS,
    "overlap_tokens": Role.OVERLAP,
    "instruction|instruct": Role.INSTRUCTION,
}
_VLLM_FIELDS = {
    "truncate_prompt_tokens": Role.MAX_DOCUMENT_TOKENS_OR_ALL,
    "truncation_side": Role.SIDE,
    "max_tokens_per_doc": Role.MAX_DOCUMENT_TOKENS,
    "max_tokens_per_query": Role.MAX_QUERY_TOKENS,
    "use_activation|activation": Role.ACTIVATION,
    "instruction": Role.INSTRUCTION,
}

# Nebul, Cohere v1, Jina, llama.cpp, Xinference, SiliconFlow and Together: one error for all of
# their clients, which read message, detail or error
COMMON = Wire(
    "common",
    {**_COMMON_FIELDS, "return_tokens": Role.RETURN_TOKENS, "highlight": Role.HIGHLIGHT},
    {
        "object": "rerank",
        "id": Slot.ID,
        "model": Slot.MODEL,
        "created": Slot.CREATED,
        "results": [
            {
                **_RANKED,
                "tokens": Slot.PAIR_TOKENS,
                "truncated": Slot.TRUNCATED,
                "highlights": Slot.HIGHLIGHTS,
            }
        ],
        "usage": _USAGE,
        "meta": _META,
    },
    {"message": Slot.MESSAGE, **_DETAIL, **_OPENAI_ERROR},
    markers=("documents",),
)
COHERE = Wire(
    "cohere",
    {
        **_ASKED,
        "documents": Role.TEXTS,
        "top_n": Role.TOP_N_OR_ALL,
        "return_documents": Role.RETURN_TEXTS,
        "max_tokens_per_doc": Role.MAX_DOCUMENT_TOKENS,
        "instruction": Role.INSTRUCTION,
        "highlight": Role.HIGHLIGHT,
    },
    {"id": Slot.ID, "results": [{**_RANKED, "highlights": Slot.HIGHLIGHTS}], "meta": _META},
    {"message": Slot.MESSAGE},
    statuses=_AS_400,
)
INFINITY = Wire(
    "infinity",
    _COMMON_FIELDS,
    {
        "object": "rerank",
        "results": [_BARE],
        "model": Slot.MODEL,
        "usage": _USAGE,
        "id": Slot.ID,
        "created": Slot.CREATED,
    },
    _OPENAI_ERROR,
    keep_nulls=True,
)
FIREWORKS = Wire(
    "fireworks",
    _COMMON_FIELDS,
    {"object": "list", "model": Slot.MODEL, "data": [_BARE], "usage": _USAGE},
    _OPENAI_ERROR,
)
VLLM = Wire(
    "vllm",
    {
        **_ASKED,
        "top_n": Role.TOP_N_OR_ALL,
        "return_documents": Role.RETURN_TEXTS_ALWAYS,
        **_VLLM_FIELDS,
    },
    {"id": Slot.ID, "model": Slot.MODEL, "usage": _USAGE, "results": [_RANKED]},
    _OPENAI_ERROR,
    statuses=_AS_400,
    repeats_texts=True,
)
VLLM_SCORE = Wire(
    "vllm-score",
    {
        "model": Role.MODEL,
        "text_1|data_1|queries": Role.QUERIES,
        "text_2|data_2|documents|items": Role.ONE_OR_MORE,
        **_VLLM_FIELDS,
    },
    {
        "id": Slot.ID,
        "object": "list",
        "created": Slot.CREATED,
        "model": Slot.MODEL,
        "data": [{"index": Slot.INDEX, "object": "score", "score": Slot.SCORE}],
        "usage": _USAGE,
    },
    _OPENAI_ERROR,
    markers=("text_1", "data_1", "queries"),
    statuses=_AS_400,
    in_input_order=True,
)
# azion: Azion.AI.run(model, …), reranking and scoring on one path
AZION = replace(VLLM, name="azion", statuses={})
AZION_SCORE = replace(VLLM_SCORE, name="azion-score", statuses={})
# https://deepinfra.com/docs/inference
DEEPINFRA = replace(
    VLLM_SCORE,
    name="deepinfra",
    answer={"scores": [Slot.SCORE], "input_tokens": Slot.TOKENS, "request_id": Slot.ID},
    error={"detail": {"error": Slot.MESSAGE}},
    markers=(),
    statuses={},
)
TEI = Wire(
    "tei",
    {
        "query": Role.QUERY,
        "texts": Role.TEXTS,
        "truncate": Role.TRUNCATE,
        "truncation_direction": Role.SIDE,
        "raw_scores": Role.RAW_SCORES,
        "return_text": Role.RETURN_TEXTS,
        "top_n": Role.TOP_N,
    },
    [{"index": Slot.INDEX, "text": Slot.TEXT, "score": Slot.SCORE}],
    {"error": Slot.MESSAGE, "error_type": Slot.TEI_ERROR_TYPE},
    markers=("texts",),
    statuses={"empty_request": 400, "scoring_failed": 424},
)
# sgl-project/sglang, serving_rerank.py: a list, and the texts unless they are not wanted
SGLANG = Wire(
    "sglang",
    {
        **_ASKED,
        "top_n": Role.TOP_N_OR_ALL,
        "return_documents": Role.RETURN_TEXTS,
        "instruct": Role.INSTRUCTION,
    },
    [{"score": Slot.SCORE, "document": Slot.TEXT, "index": Slot.INDEX}],
    {"object": "error", **_ERROR},
    statuses=_AS_400,
    repeats_texts=True,
)
VOYAGE = Wire(
    "voyage",
    {
        **_ASKED,
        "documents": Role.TEXTS,
        "top_k": Role.TOP_N,
        "return_documents": Role.RETURN_TEXTS,
        "truncation": Role.TRUNCATE,
    },
    {"object": "list", "data": [_BARE], "model": Slot.MODEL, "usage": _TOTAL},
    _DETAIL,
    markers=("truncation", "top_k"),
    statuses=_AS_400,
)
MIXEDBREAD = Wire(
    "mixedbread",
    {
        "model": Role.MODEL,
        "query": Role.QUERY,
        "input": Role.TEXTS,
        "top_k": Role.TOP_N,
        "return_input": Role.RETURN_TEXTS,
    },
    {
        "usage": _USAGE,
        "model": Slot.MODEL,
        "data": [
            {"index": Slot.INDEX, "score": Slot.SCORE, "input": Slot.TEXT, "object": "rank_result"}
        ],
        "object": "list",
        "top_k": Slot.COUNT,
        "return_input": Slot.RETURNS_TEXTS,
    },
    _DETAIL,
    markers=("input",),
)
NIM = Wire(
    "nim",
    {
        "model": Role.MODEL,
        "query": Role.QUERY_OBJECT,
        "passages": Role.PASSAGES,
        "truncate": Role.TRUNCATE_END,
        # LiteLLM sends the one, RAGFlow the other
        "top_k|top_n": Role.TOP_N,
    },
    {"rankings": [{"index": Slot.INDEX, "logit": Slot.SCORE}], "usage": _USAGE},
    _DETAIL,
    markers=("passages",),
    answers_logits=True,
)
# https://help.aliyun.com/zh/model-studio/text-rerank-api
DASHSCOPE = Wire(
    "dashscope",
    {
        "model": Role.MODEL,
        "input": {"query": Role.QUERY, "documents": Role.DOCUMENTS},
        "parameters": {
            "top_n": Role.TOP_N_OR_ALL,
            "return_documents": Role.RETURN_TEXTS,
            "instruct": Role.INSTRUCTION,
        },
    },
    {"output": {"results": [_RANKED]}, "usage": _TOTAL, "request_id": Slot.ID},
    {"code": Slot.KIND, "message": Slot.MESSAGE},
    statuses=_AS_400,
)
DASHSCOPE_COMMON = replace(
    COMMON, name="dashscope-common", error=DASHSCOPE.error, statuses=DASHSCOPE.statuses
)
# modules/reranker-transformers of weaviate/weaviate reads the scores by position
WEAVIATE = Wire(
    "weaviate",
    {"query": Role.QUERY, "documents": Role.TEXTS, "property": Role.IGNORED},
    {"query": Slot.QUERY, "scores": [{"document": Slot.TEXT, "score": Slot.SCORE}]},
    {"error": Slot.MESSAGE},
    markers=("property",),
    in_input_order=True,
    repeats_texts=True,
)
CLOUDFLARE = Wire(
    "cloudflare",
    {"query": Role.QUERY, "contexts": Role.PASSAGES, "top_k": Role.TOP_N},
    {
        "result": {"response": [{"id": Slot.INDEX, "score": Slot.SCORE}]},
        "success": True,
        "errors": [],
        "messages": [],
    },
    {
        "result": None,
        "success": False,
        "errors": [{"code": Slot.STATUS, "message": Slot.MESSAGE}],
        "messages": [],
    },
    markers=("contexts",),
    statuses=_AS_400,
)

_AT_THE_ROOT = (COMMON, WEAVIATE, VOYAGE, TEI, CLOUDFLARE)

#: paths → the services that are answered there: the first one, unless a later one has a marker in
#: the body; of several, the last
PATHS: Sequence[tuple[tuple[str, ...], tuple[Wire, ...]]] = (
    (("/rerank", "/v1/rerank", "/reranking", "/v3/rerank", "/api/rerank"), _AT_THE_ROOT),
    (("/v1/reranking", "/api/v1/reranking"), (MIXEDBREAD, COMMON)),
    (("/v2/rerank", "/providers/cohere/v2/rerank"), (COHERE,)),
    (("/score", "/v1/score", "/vllm/score", "/vllm/v1/score"), (VLLM_SCORE,)),
    (("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), (VLLM,)),
    (("/infinity/rerank",), (INFINITY,)),
    (("/tei/rerank",), (TEI,)),
    (("/sglang/rerank", "/sglang/v1/rerank"), (SGLANG,)),
    (("/voyage/rerank", "/voyage/v1/rerank"), (VOYAGE,)),
    (("/v1/ranking", "/v1/retrieval/{model:path}/reranking"), (NIM,)),
    (("/inference/v1/rerank",), (FIREWORKS,)),
    (("/api/v1/services/rerank/text-rerank/text-rerank",), (DASHSCOPE,)),
    (("/compatible-api/v1/reranks",), (DASHSCOPE_COMMON,)),
    (("/v1/inference/{model:path}",), (DEEPINFRA,)),
    (("/weaviate/rerank",), (WEAVIATE,)),
    (("/azion/ai/run/{model}",), (AZION, AZION_SCORE)),
    (("/client/v4/accounts/{account_id}/ai/run/@cf/baai/bge-reranker-base",), (CLOUDFLARE,)),
    # SageMaker has one path for every body
    (("/invocations",), (*_AT_THE_ROOT, NIM, VLLM_SCORE, MIXEDBREAD)),
)
