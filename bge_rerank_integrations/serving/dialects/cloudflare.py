"""Cloudflare Workers AI: ``…/ai/run/@cf/baai/bge-reranker-base``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    Dialect,
    Items,
    Operation,
    ScoreRequest,
    ScoreResult,
    TopN,
)
from bge_rerank_integrations.serving.dialects.requests import ApiRequest, StrictModel


class Context(StrictModel):
    """A passage."""

    text: str = Field(min_length=1)


class CloudflareRequest(ApiRequest):
    """Contexts to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": EXAMPLE_QUERY,
                    "contexts": [{"text": text} for text in EXAMPLE_DOCUMENTS],
                    "top_k": 2,
                }
            ]
        }
    )

    query: str = Field(min_length=1)
    contexts: Items[Context]
    top_k: TopN = None


class CloudflareResult(BaseModel):
    """One ranked context."""

    id: int
    score: float


class CloudflareResults(BaseModel):
    """Contexts, best first."""

    response: list[CloudflareResult]


class CloudflareErrorItem(BaseModel):
    """One error."""

    code: int
    message: str


class CloudflareResponse(BaseModel):
    """The API's envelope."""

    result: CloudflareResults
    success: Literal[True] = True
    errors: list[CloudflareErrorItem] = []
    messages: list[CloudflareErrorItem] = []


class CloudflareError(BaseModel):
    """The API's envelope of an error."""

    result: None = None
    success: Literal[False] = False
    errors: list[CloudflareErrorItem]
    messages: list[CloudflareErrorItem] = []


def _error_body(status: int, error: ApiError) -> CloudflareError:
    return CloudflareError(errors=[CloudflareErrorItem(code=status, message=error.message)])


def _to_score_request(request: CloudflareRequest) -> ScoreRequest:
    return ScoreRequest(request.query, [context.text for context in request.contexts])


def _to_response(request: CloudflareRequest, result: ScoreResult) -> CloudflareResponse:
    return CloudflareResponse(
        result=CloudflareResults(
            response=[
                CloudflareResult(id=ranked.index, score=ranked.score)
                for ranked in result.ranked(request.top_k)
            ]
        )
    )


CLOUDFLARE = Dialect(
    "cloudflare", _error_body, CloudflareError, {ErrorKind.INVALID: 400, ErrorKind.EMPTY: 400}
)
RUN = Operation(CLOUDFLARE, CloudflareRequest, CloudflareResponse, _to_score_request, _to_response)
