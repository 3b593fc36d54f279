"""The bodies that Nebul, Cohere v1, Jina and Infinity share: ``/rerank`` and ``/v1/rerank``."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import ApiError
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    ApiRequest,
    AtLeastOne,
    Dialect,
    Documents,
    Instruction,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    Text,
    TopN,
    Truncation,
)


class CommonRequest(ApiRequest):
    """Documents to rank for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "top_n": 2}]})

    model: ModelName = None
    query: str
    documents: Documents
    top_n: TopN = None
    return_documents: bool = Field(default=False, description="Repeat the texts in the result.")
    raw_scores: bool = Field(default=False, description="Logits instead of scores from 0 to 1.")
    max_tokens_per_doc: AtLeastOne | None = Field(
        default=None, description="Truncate each document to this number of tokens."
    )
    instruction: Instruction = Field(
        default=None, validation_alias=AliasChoices("instruction", "instruct")
    )


class CountedRequest(CommonRequest):
    """Documents to rank for a query, and what may be told of each."""

    return_tokens: bool = Field(
        default=False, description="Tell each document's tokens, and whether it was truncated."
    )


class CommonResult(BaseModel):
    """One ranked document."""

    index: int
    relevance_score: float
    document: Text | None = None
    tokens: int | None = Field(default=None, description="Tokens of query and document.")
    truncated: bool | None = None


class Usage(Truncation):
    """Number of tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class CommonResponse(BaseModel):
    """Documents, best first."""

    object: Literal["rerank"] = "rerank"
    id: str
    model: str
    created: int
    results: list[CommonResult]
    usage: Usage


class ErrorDetail(BaseModel):
    """An error, as OpenAI's clients expect it."""

    message: str
    type: str
    param: str | None
    code: int


class CommonError(BaseModel):
    """One error for four clients.

    Cohere's reads ``message``, Jina's ``detail``, Nebul's and Infinity's ``error``.
    """

    message: str
    detail: str
    error: ErrorDetail


def error_detail(status: int, error: ApiError) -> ErrorDetail:
    """Format an error as OpenAI's clients expect it."""
    return ErrorDetail(message=error.message, type=error.kind.value, param=error.field, code=status)


def _error_body(status: int, error: ApiError) -> CommonError:
    return CommonError(
        message=error.message, detail=error.message, error=error_detail(status, error)
    )


def to_score_request(request: CommonRequest) -> ScoreRequest:
    """One score request."""
    return ScoreRequest(
        request.query,
        request.documents,
        normalize=not request.raw_scores,
        max_document_tokens=request.max_tokens_per_doc,
        instruction=request.instruction,
    )


def usage_of(result: ScoreResult) -> Usage:
    """What the model read, and what it did not."""
    usage = result.scores.usage
    return Usage(
        prompt_tokens=usage.total_tokens,
        total_tokens=usage.total_tokens,
        truncated_documents=usage.truncated_documents,
        query_truncated=usage.query_truncated,
    )


def _to_response(request: CountedRequest, result: ScoreResult) -> CommonResponse:
    usage, truncated = result.scores.usage, set(result.scores.usage.truncated)
    return CommonResponse(
        id=result.id,
        model=result.model,
        created=result.created,
        results=[
            CommonResult(
                index=ranked.index,
                relevance_score=ranked.score,
                document=(
                    Text(text=request.documents[ranked.index]) if request.return_documents else None
                ),
                tokens=usage.pair_tokens[ranked.index] if request.return_tokens else None,
                truncated=ranked.index in truncated if request.return_tokens else None,
            )
            for ranked in result.ranked(request.top_n)
        ],
        usage=usage_of(result),
    )


COMMON = Dialect("common", _error_body, CommonError)
RERANK = Operation(COMMON, CountedRequest, CommonResponse, to_score_request, _to_response)
