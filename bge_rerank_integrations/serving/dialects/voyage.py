"""Voyage AI: ``/v1/rerank`` with ``top_k`` and ``data``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import Kind, Problem
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    Answer,
    Dialect,
    Form,
    ModelName,
    Question,
    Request,
    TopN,
)


class VoyageRequest(Request):
    """Documents to rank for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "top_k": 2}]})

    model: ModelName = None
    query: str
    documents: list[str] = Field(min_length=1)
    top_k: TopN = None
    return_documents: bool = Field(default=False, description="Repeat the texts in the answer.")
    truncation: bool = Field(
        default=True,
        description="False: refuse a document that is too long, instead of cutting it.",
    )


class VoyageResult(BaseModel):
    """One document's place."""

    relevance_score: float
    index: int
    document: str | None = None


class TotalTokens(BaseModel):
    """Tokens that the model read."""

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


def detail_error(_: int, problem: Problem) -> DetailError:
    """An error body with ``detail`` alone."""
    return DetailError(detail=problem.message)


def _questions(request: VoyageRequest) -> list[Question]:
    return [Question(request.query, request.documents, refuse_long=not request.truncation)]


def _reply(request: VoyageRequest, answer: Answer) -> VoyageResponse:
    return VoyageResponse(
        data=[
            VoyageResult(
                relevance_score=ranked.score,
                index=ranked.index,
                document=request.documents[ranked.index] if request.return_documents else None,
            )
            for ranked in answer.ranked(request.top_k)
        ],
        model=answer.model,
        usage=TotalTokens(total_tokens=answer.tokens),
    )


VOYAGE = Dialect("voyage", detail_error, DetailError, {Kind.INVALID: 400, Kind.EMPTY: 400})
RERANK = Form(VOYAGE, VoyageRequest, VoyageResponse, _questions, _reply)
