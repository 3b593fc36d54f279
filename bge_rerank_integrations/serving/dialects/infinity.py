"""Infinity: the common bodies, but a result's document is a string or null."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bge_rerank_integrations.serving.api_errors import ApiError
from bge_rerank_integrations.serving.dialects.base import Dialect, Operation, ScoreResult
from bge_rerank_integrations.serving.dialects.common import (
    CommonRequest,
    ErrorDetail,
    Usage,
    error_detail,
    to_score_request,
    usage_of,
)


class InfinityResult(BaseModel):
    """One ranked document."""

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
    """An error in OpenAI's format."""

    error: ErrorDetail


def openai_error(status: int, error: ApiError) -> OpenAIError:
    """Format an error as OpenAI does."""
    return OpenAIError(error=error_detail(status, error))


def _to_response(request: CommonRequest, result: ScoreResult) -> InfinityResponse:
    return InfinityResponse(
        results=[
            InfinityResult(
                relevance_score=ranked.score,
                index=ranked.index,
                document=request.documents[ranked.index] if request.return_documents else None,
            )
            for ranked in result.ranked(request.top_n or None)
        ],
        model=result.model,
        usage=usage_of(result),
        id=result.id,
        created=result.created,
    )


INFINITY = Dialect("infinity", openai_error, OpenAIError)
RERANK = Operation(
    INFINITY, CommonRequest, InfinityResponse, to_score_request, _to_response, keep_nulls=True
)
