"""Cloudflare Workers AI: ``…/ai/run/@cf/baai/bge-reranker-base``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import Kind, Problem
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    Answer,
    Dialect,
    Form,
    Question,
    Request,
    TopN,
)


class Context(Request):
    """A passage."""

    text: str = Field(min_length=1)


class CloudflareRequest(Request):
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
    contexts: list[Context] = Field(min_length=1)
    top_k: TopN = None


class CloudflareResult(BaseModel):
    """One context's place."""

    id: int
    score: float


class CloudflareResults(BaseModel):
    """Contexts, best first."""

    response: list[CloudflareResult]


class CloudflareErrorItem(BaseModel):
    """What went wrong."""

    code: int
    message: str


class CloudflareResponse(BaseModel):
    """The API's envelope."""

    result: CloudflareResults
    success: Literal[True] = True
    errors: list[CloudflareErrorItem] = []
    messages: list[CloudflareErrorItem] = []


class CloudflareError(BaseModel):
    """The API's envelope, for an error."""

    result: None = None
    success: Literal[False] = False
    errors: list[CloudflareErrorItem]
    messages: list[CloudflareErrorItem] = []


def _error_body(status: int, problem: Problem) -> CloudflareError:
    return CloudflareError(errors=[CloudflareErrorItem(code=status, message=problem.message)])


def _questions(request: CloudflareRequest) -> list[Question]:
    return [Question(request.query, [context.text for context in request.contexts])]


def _reply(request: CloudflareRequest, answer: Answer) -> CloudflareResponse:
    return CloudflareResponse(
        result=CloudflareResults(
            response=[
                CloudflareResult(id=ranked.index, score=ranked.score)
                for ranked in answer.ranked(request.top_k)
            ]
        )
    )


CLOUDFLARE = Dialect(
    "cloudflare", _error_body, CloudflareError, {Kind.INVALID: 400, Kind.EMPTY: 400}
)
RUN = Form(CLOUDFLARE, CloudflareRequest, CloudflareResponse, _questions, _reply)
