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


class CommonResult(BaseModel):
    """One ranked document."""

    index: int
    relevance_score: float
    document: Text | None = None


class Usage(BaseModel):
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


def _to_response(request: CommonRequest, result: ScoreResult) -> CommonResponse:
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
            )
            for ranked in result.ranked(request.top_n)
        ],
        usage=Usage(prompt_tokens=result.tokens, total_tokens=result.tokens),
    )


COMMON = Dialect("common", _error_body, CommonError)
RERANK = Operation(COMMON, CommonRequest, CommonResponse, to_score_request, _to_response)
