"""Hugging Face's text-embeddings-inference: ``/rerank`` with ``texts``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from bge_rerank_integrations.serving.api_errors import Kind, Problem
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    Answer,
    Dialect,
    Form,
    Question,
    Request,
)


class TeiRequest(Request):
    """Texts to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": EXAMPLE_QUERY, "texts": EXAMPLE_DOCUMENTS}]}
    )

    query: str
    texts: list[str] = Field(min_length=1)
    truncate: bool | None = Field(
        default=None, description="False: refuse a text that is too long, instead of cutting it."
    )
    truncation_direction: Annotated[
        Literal["right", "Right"], Field(description="The end is cut, never the beginning.")
    ] = "right"
    raw_scores: bool = Field(default=False, description="Logits instead of scores from 0 to 1.")
    return_text: bool = Field(default=False, description="Repeat the texts in the answer.")


class TeiResult(BaseModel):
    """One text's place."""

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
    Kind,
    Literal[
        "unhealthy", "backend", "overloaded", "validation", "tokenizer", "empty", "unauthorized"
    ],
] = {
    Kind.EMPTY: "empty",
    Kind.UNAUTHORIZED: "unauthorized",
    Kind.OVERLOADED: "overloaded",
    Kind.UNAVAILABLE: "unhealthy",
    Kind.DEADLINE: "backend",
    Kind.SCORING: "backend",
    Kind.INTERNAL: "backend",
}


def _error_body(_: int, problem: Problem) -> TeiError:
    return TeiError(error=problem.message, error_type=_ERROR_TYPES.get(problem.kind, "validation"))


def _questions(request: TeiRequest) -> list[Question]:
    return [Question(request.query, request.texts, refuse_long=request.truncate is False)]


def _reply(request: TeiRequest, answer: Answer) -> TeiResponse:
    return TeiResponse(
        [
            TeiResult(
                index=ranked.index,
                text=request.texts[ranked.index] if request.return_text else None,
                score=ranked.score,
            )
            for ranked in answer.ranked(None, raw=request.raw_scores)
        ]
    )


TEI = Dialect("tei", _error_body, TeiError, {Kind.EMPTY: 400, Kind.SCORING: 424})
RERANK = Form(TEI, TeiRequest, TeiResponse, _questions, _reply, marker="texts")
