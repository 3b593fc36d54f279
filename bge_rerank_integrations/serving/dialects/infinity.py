"""Infinity: as the common form, but a document comes back as a bare string or null."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bge_rerank_integrations.serving.api_errors import Problem
from bge_rerank_integrations.serving.dialects.base import Answer, Dialect, Form
from bge_rerank_integrations.serving.dialects.common import (
    CommonRequest,
    ErrorDetail,
    Usage,
    error_detail,
    questions,
)


class InfinityResult(BaseModel):
    """One document's place."""

    relevance_score: float
    index: int
    document: str | None


class InfinityResponse(BaseModel):
    """Documents, best first."""

    object: Literal["rerank"] = "rerank"
    results: list[InfinityResult]
    model: str
    usage: Usage
    id: str
    created: int


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail


def openai_error(status: int, problem: Problem) -> OpenAIError:
    """An error body in OpenAI's form."""
    return OpenAIError(error=error_detail(status, problem))


def _reply(request: CommonRequest, answer: Answer) -> InfinityResponse:
    return InfinityResponse(
        results=[
            InfinityResult(
                relevance_score=ranked.score,
                index=ranked.index,
                document=request.documents[ranked.index] if request.return_documents else None,
            )
            for ranked in answer.ranked(request.top_n, raw=request.raw_scores)
        ],
        model=answer.model,
        usage=Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
        id=answer.id,
        created=answer.created,
    )


INFINITY = Dialect("infinity", openai_error, OpenAIError)
RERANK = Form(INFINITY, CommonRequest, InfinityResponse, questions, _reply, keep_nulls=True)
