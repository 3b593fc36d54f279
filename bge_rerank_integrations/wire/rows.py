"""The wire formats: one row for each service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import Role, Slot, Wire

# what the fields of requests mean, by the last part of their names; rows say where they differ
_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("model", "modelArn", "model_id"), Role.MODEL),
    **dict.fromkeys(("query", "source_sentence"), Role.QUERY),
    **dict.fromkeys(("text_1", "data_1", "queries"), Role.QUERIES),
    "documents": Role.DOCUMENTS,
    **dict.fromkeys(("input", "sentences", "texts", "text", "text_pair"), Role.TEXTS),
    **dict.fromkeys(("text_2", "data_2", "items"), Role.ONE_OR_MORE),
    **dict.fromkeys(("top_k", "numberOfResults"), Role.TOP_N),
    "top_n": Role.TOP_N_OR_ALL,
    **dict.fromkeys(("return_documents", "return_input", "return_text"), Role.RETURN_TEXTS),
    "return_tokens": Role.RETURN_TOKENS,
    "raw_scores": Role.RAW_SCORES,
    **dict.fromkeys(("use_activation", "activation"), Role.ACTIVATION),
    **dict.fromkeys(("instruction", "instruct"), Role.INSTRUCTION),
    "highlight": Role.HIGHLIGHT,
    "rank_fields": Role.RANK_FIELDS,
    **dict.fromkeys(("max_tokens_per_doc", "truncate_input_tokens"), Role.MAX_DOCUMENT_TOKENS),
    "truncate_prompt_tokens": Role.MAX_DOCUMENT_TOKENS_OR_ALL,
    "max_tokens_per_query": Role.MAX_QUERY_TOKENS,
    "max_chunks_per_doc": Role.MAX_CHUNKS,
    "overlap_tokens": Role.OVERLAP,
    **dict.fromkeys(("truncate", "truncation"), Role.TRUNCATE),
    **dict.fromkeys(("truncation_direction", "truncation_side"), Role.SIDE),
    "property": Role.IGNORED,
}


def _fields(names: str, roles: Mapping[str, Role] | None = None) -> dict[str, Role]:
    """The fields of these names.

    :param roles: those that differ from :data:`_ROLES`.
    """
    differ = roles or {}
    return {name: differ.get(name) or _ROLES[name.rpartition(".")[2]] for name in names.split()}


_AS_400 = {"invalid_request": 400, "empty_request": 400}

_WHOLE = {"truncated_documents": Slot.TRUNCATED_DOCUMENTS, "query_truncated": Slot.QUERY_TRUNCATED}
_TOTAL = {"total_tokens": Slot.TOKENS, **_WHOLE}
_USAGE = {"prompt_tokens": Slot.TOKENS, "completion_tokens": 0, **_TOTAL}
_META = {
    "api_version": {"version": "2"},
    "billed_units": {"search_units": Slot.SEARCHES},
    "tokens": {"input_tokens": Slot.TOKENS, "output_tokens": 0},
    **_WHOLE,
}
_BARE = {"index": Slot.INDEX, "relevance_score": Slot.SCORE, "document": Slot.TEXT}
_RANKED = {**_BARE, "document": {"text": Slot.TEXT}}
_TOLD = {"tokens": Slot.PAIR_TOKENS, "truncated": Slot.TRUNCATED, "highlights": Slot.HIGHLIGHTS}
_HEAD = {"id": Slot.ID, "object": "rerank", "created": Slot.CREATED, "model": Slot.MODEL}
_ERROR = {"message": Slot.MESSAGE, "type": Slot.KIND, "param": Slot.FIELD, "code": Slot.STATUS}
_OPENAI_ERROR = {"error": _ERROR}
_DETAIL = {"detail": Slot.MESSAGE}

_COMMON_FIELDS = _fields(
    "model query documents top_n return_documents raw_scores rank_fields max_tokens_per_doc "
    "truncate_prompt_tokens max_chunks_per_doc overlap_tokens instruction instruct"
)
_HOW_VLLM_READS = (
    "truncate_prompt_tokens truncation_side max_tokens_per_doc max_tokens_per_query use_activation "
    "activation instruction"
)

# Nebul, Cohere v1, Jina, llama.cpp, Xinference, SiliconFlow and Together: one error for all of
# their clients, which read message, detail or error
COMMON = Wire(
    "common",
    {**_COMMON_FIELDS, **_fields("max_tokens_per_query return_tokens highlight")},
    {**_HEAD, "results": [{**_RANKED, **_TOLD}], "usage": _USAGE, "meta": _META},
    {"message": Slot.MESSAGE, **_DETAIL, **_OPENAI_ERROR},
    markers=("documents",),
)
# Jina repeats the texts unless a request says not to, and some of its clients read them
JINA = replace(COMMON, name="jina", repeats_texts=True)
COHERE = Wire(
    "cohere",
    _fields(
        "model query documents top_n return_documents max_tokens_per_doc instruction highlight",
        {"documents": Role.TEXTS},
    ),
    {"id": Slot.ID, "results": [{**_RANKED, "highlights": Slot.HIGHLIGHTS}], "meta": _META},
    {"message": Slot.MESSAGE},
    statuses=_AS_400,
)
INFINITY = Wire(
    "infinity",
    _COMMON_FIELDS,
    {**_HEAD, "results": [_BARE], "usage": _USAGE},
    _OPENAI_ERROR,
    keep_nulls=True,
)
FIREWORKS = Wire(
    "fireworks",
    _COMMON_FIELDS,
    {"object": "list", "model": Slot.MODEL, "data": [_BARE], "usage": _USAGE},
    _OPENAI_ERROR,
)
# pinecone-io/pinecone-python-client: what its hosted models take is in parameters
PINECONE = Wire(
    "pinecone",
    _fields(
        "model query documents top_n return_documents rank_fields parameters.truncate",
        {"parameters.truncate": Role.TRUNCATE_END},
    ),
    {
        "model": Slot.MODEL,
        "data": [{"index": Slot.INDEX, "score": Slot.SCORE, "document": {"text": Slot.TEXT}}],
        "usage": {"rerank_units": Slot.SEARCHES, **_WHOLE},
    },
    {"error": {"code": Slot.KIND, "message": Slot.MESSAGE}, "status": Slot.STATUS},
    repeats_texts=True,
)
VLLM = Wire(
    "vllm",
    _fields(
        f"model query documents top_n return_documents {_HOW_VLLM_READS}",
        {"return_documents": Role.RETURN_TEXTS_ALWAYS},
    ),
    {"id": Slot.ID, "model": Slot.MODEL, "usage": _USAGE, "results": [_RANKED]},
    _OPENAI_ERROR,
    statuses=_AS_400,
    repeats_texts=True,
)
VLLM_SCORE = Wire(
    "vllm-score",
    _fields(
        f"model text_1 data_1 queries text_2 data_2 documents items {_HOW_VLLM_READS}",
        {"documents": Role.ONE_OR_MORE},
    ),
    {
        **_HEAD,
        "object": "list",
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
    _fields(
        "query texts truncate truncation_direction raw_scores return_text top_n",
        {"top_n": Role.TOP_N},
    ),
    [{"index": Slot.INDEX, "text": Slot.TEXT, "score": Slot.SCORE}],
    {"error": Slot.MESSAGE, "error_type": Slot.TEI_ERROR_TYPE},
    markers=("texts",),
    statuses={"empty_request": 400, "scoring_failed": 424},
)
# transformers' pipeline for text-classification, as SageMaker's containers serve it
PAIRS = Wire(
    "pairs",
    _fields("inputs[].text inputs[].text_pair", {"inputs[].text": Role.QUERIES}),
    [{"label": "LABEL_0", "score": Slot.SCORE}],
    {"error": Slot.MESSAGE},
    markers=("inputs",),
    in_input_order=True,
)
# https://huggingface.co/docs/inference-providers: the task sentence-similarity
SIMILARITY = replace(
    PAIRS,
    name="sentence-similarity",
    fields=_fields("inputs.source_sentence inputs.sentences"),
    answer=[Slot.SCORE],
    markers=(),
)
# sgl-project/sglang, serving_rerank.py: a list, and the texts unless they are not wanted
SGLANG = Wire(
    "sglang",
    _fields("model query documents top_n return_documents instruct"),
    [{"score": Slot.SCORE, "document": Slot.TEXT, "index": Slot.INDEX}],
    {"object": "error", **_ERROR},
    statuses=_AS_400,
    repeats_texts=True,
)
VOYAGE = Wire(
    "voyage",
    _fields("model query documents top_k return_documents truncation", {"documents": Role.TEXTS}),
    {"object": "list", "data": [_BARE], "model": Slot.MODEL, "usage": _TOTAL},
    _DETAIL,
    markers=("truncation", "top_k"),
    statuses=_AS_400,
)
MIXEDBREAD = Wire(
    "mixedbread",
    _fields("model query input top_k return_input"),
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
    # LiteLLM sends top_k, RAGFlow top_n
    _fields(
        "model query.text passages[].text truncate top_k top_n",
        {"query.text": Role.QUERY, "truncate": Role.TRUNCATE_END, "top_n": Role.TOP_N},
    ),
    {"rankings": [{"index": Slot.INDEX, "logit": Slot.SCORE}], "usage": _USAGE},
    _DETAIL,
    markers=("passages",),
    answers_logits=True,
)
# https://help.aliyun.com/zh/model-studio/text-rerank-api
DASHSCOPE = Wire(
    "dashscope",
    _fields(
        "model input.query input.documents parameters.top_n parameters.return_documents "
        "parameters.instruct"
    ),
    {"output": {"results": [_RANKED]}, "usage": _TOTAL, "request_id": Slot.ID},
    {"code": Slot.KIND, "message": Slot.MESSAGE},
    statuses=_AS_400,
)
DASHSCOPE_COMMON = replace(
    COMMON, name="dashscope-common", error=DASHSCOPE.error, statuses=DASHSCOPE.statuses
)
# https://cloud.ibm.com/apidocs/watsonx-ai#text-rerank
WATSONX = Wire(
    "watsonx",
    _fields(
        "model_id model query inputs[].text parameters.truncate_input_tokens "
        "parameters.return_options.top_n parameters.return_options.inputs",
        {"parameters.return_options.inputs": Role.RETURN_TEXTS},
    ),
    {
        "model_id": Slot.MODEL,
        "results": [{"index": Slot.INDEX, "score": Slot.SCORE, "input": {"text": Slot.TEXT}}],
        "input_token_count": Slot.TOKENS,
    },
    {"errors": [{"code": Slot.KIND, "message": Slot.MESSAGE}], "status_code": Slot.STATUS},
    statuses=_AS_400,
)
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_Rerank.html
BEDROCK = Wire(
    "bedrock",
    _fields(
        "queries[].textQuery.text sources[].inlineDocumentSource.textDocument.text "
        "rerankingConfiguration.bedrockRerankingConfiguration.numberOfResults "
        "rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn",
        {"queries[].textQuery.text": Role.QUERIES},
    ),
    {"results": [{"index": Slot.INDEX, "relevanceScore": Slot.SCORE}]},
    {"message": Slot.MESSAGE},
    markers=("sources",),
    statuses=_AS_400,
)
# modules/reranker-transformers of weaviate/weaviate reads the scores by position
WEAVIATE = Wire(
    "weaviate",
    _fields("query documents property", {"documents": Role.TEXTS}),
    {"query": Slot.QUERY, "scores": [{"document": Slot.TEXT, "score": Slot.SCORE}]},
    {"error": Slot.MESSAGE},
    markers=("property",),
    in_input_order=True,
    repeats_texts=True,
)
CLOUDFLARE = Wire(
    "cloudflare",
    _fields("query contexts[].text top_k"),
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
