"""Voyage AI: ``/v1/rerank`` with ``top_k`` and ``data``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    Dialect,
    Items,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    TopN,
    Truncation,
)
from bge_rerank_integrations.serving.dialects.requests import ApiRequest
from bge_rerank_integrations.setting_types import LongDocuments


class VoyageRequest(ApiRequest):
    """Documents to rank for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "top_k": 2}]})

    model: ModelName = None
    query: str
    documents: Items[str]
    top_k: TopN = None
    return_documents: bool = Field(default=False, description="Repeat the texts in the result.")
    truncation: bool = Field(
        default=True,
        description="False: reject a document that is too long, instead of truncating it.",
    )


class VoyageResult(BaseModel):
    """One ranked document."""

    relevance_score: float
    index: int
    document: str | None = None


class TotalTokens(Truncation):
    """Number of tokens that the model read."""

    total_tokens: int


class VoyageResponse(BaseModel):
    """Documents, best first."""

    object: Literal["list"] = "list"
    data: list[VoyageResult]
    model: str
    usage: TotalTokens


class DetailError(BaseModel):
    """An error."""

    detail: str


def detail_error(_: int, error: ApiError) -> DetailError:
    """Format an error as ``detail`` alone."""
    return DetailError(detail=error.message)


def _to_score_request(request: VoyageRequest) -> ScoreRequest:
    long_documents: LongDocuments | None = None if request.truncation else "refuse"
    return ScoreRequest(request.query, request.documents, long_documents=long_documents)


def total_tokens(result: ScoreResult) -> TotalTokens:
    """What the model read, and what it did not."""
    usage = result.scores.usage
    return TotalTokens(
        total_tokens=usage.total_tokens,
        truncated_documents=usage.truncated_documents,
        query_truncated=usage.query_truncated,
    )


def _to_response(request: VoyageRequest, result: ScoreResult) -> VoyageResponse:
    return VoyageResponse(
        data=[
            VoyageResult(
                relevance_score=ranked.score,
                index=ranked.index,
                document=request.documents[ranked.index] if request.return_documents else None,
            )
            for ranked in result.ranked(request.top_k)
        ],
        model=result.model,
        usage=total_tokens(result),
    )


VOYAGE = Dialect(
    "voyage", detail_error, DetailError, {ErrorKind.INVALID: 400, ErrorKind.EMPTY: 400}
)
RERANK = Operation(
    VOYAGE,
    VoyageRequest,
    VoyageResponse,
    _to_score_request,
    _to_response,
    markers=("truncation", "top_k"),
)
