"""Mixedbread: ``/v1/reranking`` with ``input`` and ``top_k``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    Dialect,
    Items,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    TopN,
)
from bge_rerank_integrations.serving.dialects.common import Usage, usage_of
from bge_rerank_integrations.serving.dialects.requests import ApiRequest
from bge_rerank_integrations.serving.dialects.voyage import DetailError, detail_error


class MixedbreadRequest(ApiRequest):
    """Texts to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": EXAMPLE_QUERY, "input": EXAMPLE_DOCUMENTS, "top_k": 2}]
        }
    )

    model: ModelName = None
    query: str
    input: Items[str]
    top_k: TopN = None
    return_input: bool = Field(default=False, description="Repeat the texts in the result.")


class MixedbreadResult(BaseModel):
    """One ranked text."""

    index: int
    score: float
    input: str | None = None
    object: Literal["rank_result"] = "rank_result"


class MixedbreadResponse(BaseModel):
    """Texts, best first."""

    usage: Usage
    model: str
    data: list[MixedbreadResult]
    object: Literal["list"] = "list"
    top_k: int
    return_input: bool


def _to_score_request(request: MixedbreadRequest) -> ScoreRequest:
    return ScoreRequest(request.query, request.input)


def _to_response(request: MixedbreadRequest, result: ScoreResult) -> MixedbreadResponse:
    ranking = result.ranked(request.top_k)
    return MixedbreadResponse(
        usage=usage_of(result),
        model=result.model,
        data=[
            MixedbreadResult(
                index=ranked.index,
                score=ranked.score,
                input=request.input[ranked.index] if request.return_input else None,
            )
            for ranked in ranking
        ],
        top_k=len(ranking),
        return_input=request.return_input,
    )


MIXEDBREAD = Dialect("mixedbread", detail_error, DetailError)
RERANKING = Operation(
    MIXEDBREAD, MixedbreadRequest, MixedbreadResponse, _to_score_request, _to_response
)
