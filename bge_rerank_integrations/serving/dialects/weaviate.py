"""Weaviate's module reranker-transformers: ``/rerank``, answered in the documents' order.

Source: ``modules/reranker-transformers/clients/ranker.go`` of weaviate/weaviate, which reads the
scores by position and always sends ``property``.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import ApiError
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    Dialect,
    Items,
    Operation,
    ScoreRequest,
    ScoreResult,
)
from bge_rerank_integrations.serving.dialects.requests import ApiRequest


class WeaviateRequest(ApiRequest):
    """Documents to score for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "property": ""}]})

    query: str
    documents: Items[str]
    property: str | None = Field(default=None, description="Ignored, and empty in Weaviate.")


class WeaviateScore(BaseModel):
    """One document's score."""

    document: str
    score: float


class WeaviateResponse(BaseModel):
    """Scores in input order."""

    query: str
    scores: list[WeaviateScore]


class WeaviateError(BaseModel):
    """An error."""

    error: str


def _error_body(_: int, error: ApiError) -> WeaviateError:
    return WeaviateError(error=error.message)


def _to_score_request(request: WeaviateRequest) -> ScoreRequest:
    return ScoreRequest(request.query, request.documents)


def _to_response(request: WeaviateRequest, result: ScoreResult) -> WeaviateResponse:
    return WeaviateResponse(
        query=request.query,
        scores=[
            WeaviateScore(document=document, score=score)
            for document, score in zip(request.documents, result.scores, strict=True)
        ],
    )


WEAVIATE = Dialect("weaviate", _error_body, WeaviateError)
RERANK = Operation(
    WEAVIATE,
    WeaviateRequest,
    WeaviateResponse,
    _to_score_request,
    _to_response,
    markers=("property",),
)
