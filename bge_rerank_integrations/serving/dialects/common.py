"""The form that Nebul, Cohere v1, Jina and Infinity share: ``/rerank`` and ``/v1/rerank``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import Problem
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    Answer,
    AtLeastOne,
    Dialect,
    Documents,
    Form,
    ModelName,
    Question,
    Request,
    Text,
    TopN,
)


class CommonRequest(Request):
    """Documents to rank for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "top_n": 2}]})

    model: ModelName = None
    query: str
    documents: Documents
    top_n: TopN = None
    return_documents: bool = Field(default=False, description="Repeat the texts in the answer.")
    raw_scores: bool = Field(default=False, description="Logits instead of scores from 0 to 1.")
    max_tokens_per_doc: AtLeastOne | None = Field(
        default=None, description="Cut each document after this number of tokens."
    )


class CommonResult(BaseModel):
    """One document's place."""

    index: int
    relevance_score: float
    document: Text | None = None


class Usage(BaseModel):
    """Tokens that the model read."""

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
    """What went wrong, as OpenAI's clients expect it."""

    message: str
    type: str
    param: str | None
    code: int


class CommonError(BaseModel):
    """One error for four kinds of clients: Cohere's reads ``message``, Jina's ``detail``, those of
    Nebul and Infinity ``error``."""

    message: str
    detail: str
    error: ErrorDetail


def error_detail(status: int, problem: Problem) -> ErrorDetail:
    """A problem as OpenAI's clients expect it."""
    return ErrorDetail(
        message=problem.message, type=problem.kind.value, param=problem.field, code=status
    )


def _error_body(status: int, problem: Problem) -> CommonError:
    return CommonError(
        message=problem.message, detail=problem.message, error=error_detail(status, problem)
    )


def questions(request: CommonRequest) -> list[Question]:
    """What the engine is asked."""
    return [Question(request.query, request.documents, request.max_tokens_per_doc)]


def _reply(request: CommonRequest, answer: Answer) -> CommonResponse:
    return CommonResponse(
        id=answer.id,
        model=answer.model,
        created=answer.created,
        results=[
            CommonResult(
                index=ranked.index,
                relevance_score=ranked.score,
                document=(
                    Text(text=request.documents[ranked.index]) if request.return_documents else None
                ),
            )
            for ranked in answer.ranked(request.top_n, raw=request.raw_scores)
        ],
        usage=Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
    )


COMMON = Dialect("common", _error_body, CommonError)
RERANK = Form(COMMON, CommonRequest, CommonResponse, questions, _reply)
