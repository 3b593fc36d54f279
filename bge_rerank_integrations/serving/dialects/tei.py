"""Hugging Face's text-embeddings-inference: ``/rerank`` with ``texts``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

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
from bge_rerank_integrations.serving.dialects.requests import ApiRequest
from bge_rerank_integrations.setting_types import LongDocuments


class TeiRequest(ApiRequest):
    """Texts to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": EXAMPLE_QUERY, "texts": EXAMPLE_DOCUMENTS}]}
    )

    query: str
    texts: Items[str]
    truncate: bool | None = Field(
        default=None, description="False: reject a text that is too long, instead of truncating it."
    )
    truncation_direction: Annotated[
        Literal["left", "Left", "right", "Right"],
        Field(description="The side of a long text that is not read."),
    ] = "right"
    raw_scores: bool = Field(default=False, description="Logits instead of scores from 0 to 1.")
    return_text: bool = Field(default=False, description="Repeat the texts in the result.")
    top_n: TopN = None


class TeiResult(BaseModel):
    """One ranked text."""

    index: int
    text: str | None = None
    score: float


class TeiResponse(RootModel[list[TeiResult]]):
    """Texts, best first."""


class TeiError(BaseModel):
    """An error."""

    error: str
    error_type: Literal[
        "unhealthy", "backend", "overloaded", "validation", "tokenizer", "empty", "unauthorized"
    ]


_ERROR_TYPES: dict[
    ErrorKind,
    Literal[
        "unhealthy", "backend", "overloaded", "validation", "tokenizer", "empty", "unauthorized"
    ],
] = {
    ErrorKind.EMPTY: "empty",
    ErrorKind.UNAUTHORIZED: "unauthorized",
    ErrorKind.OVERLOADED: "overloaded",
    ErrorKind.UNAVAILABLE: "unhealthy",
    ErrorKind.DEADLINE: "backend",
    ErrorKind.SCORING: "backend",
    ErrorKind.INTERNAL: "backend",
}


def _error_body(_: int, error: ApiError) -> TeiError:
    return TeiError(error=error.message, error_type=_ERROR_TYPES.get(error.kind, "validation"))


def _to_score_request(request: TeiRequest) -> ScoreRequest:
    long_documents: LongDocuments | None = None
    if request.truncate is False:
        long_documents = "refuse"
    elif request.truncation_direction.lower() == "left":
        long_documents = "truncate_left"
    return ScoreRequest(
        request.query,
        request.texts,
        normalize=not request.raw_scores,
        long_documents=long_documents,
    )


def _to_response(request: TeiRequest, result: ScoreResult) -> TeiResponse:
    return TeiResponse(
        [
            TeiResult(
                index=ranked.index,
                text=request.texts[ranked.index] if request.return_text else None,
                score=ranked.score,
            )
            for ranked in result.ranked(request.top_n)
        ]
    )


TEI = Dialect("tei", _error_body, TeiError, {ErrorKind.EMPTY: 400, ErrorKind.SCORING: 424})
RERANK = Operation(
    TEI, TeiRequest, TeiResponse, _to_score_request, _to_response, markers=("texts",)
)
