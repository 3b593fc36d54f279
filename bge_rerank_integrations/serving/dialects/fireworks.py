"""Fireworks: ``/inference/v1/rerank``, the common request with its results in ``data``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bge_rerank_integrations.serving.dialects.base import Dialect, Operation, ScoreResult
from bge_rerank_integrations.serving.dialects.common import (
    CommonRequest,
    Usage,
    to_score_request,
    usage_of,
)
from bge_rerank_integrations.serving.dialects.infinity import OpenAIError, openai_error
from bge_rerank_integrations.serving.dialects.voyage import VoyageResult


class FireworksUsage(Usage):
    """Number of tokens that the model read."""

    completion_tokens: int = 0


class FireworksResponse(BaseModel):
    """Documents, best first."""

    object: Literal["list"] = "list"
    model: str
    data: list[VoyageResult]
    usage: FireworksUsage


def _to_response(request: CommonRequest, result: ScoreResult) -> FireworksResponse:
    return FireworksResponse(
        model=result.model,
        data=[
            VoyageResult(
                relevance_score=ranked.score,
                index=ranked.index,
                document=request.documents[ranked.index] if request.return_documents else None,
            )
            for ranked in result.ranked(request.top_n or None)
        ],
        usage=FireworksUsage(**usage_of(result).model_dump()),
    )


FIREWORKS = Dialect("fireworks", openai_error, OpenAIError)
RERANK = Operation(FIREWORKS, CommonRequest, FireworksResponse, to_score_request, _to_response)
