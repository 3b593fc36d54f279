"""NVIDIA NIM: ``/v1/ranking``, which answers logits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    Answer,
    Dialect,
    Form,
    ModelName,
    Question,
    Request,
)
from bge_rerank_integrations.serving.dialects.common import Usage
from bge_rerank_integrations.serving.dialects.voyage import DetailError, detail_error


class Passage(Request):
    """A query or a passage."""

    text: str


class NimRequest(Request):
    """Passages to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": {"text": EXAMPLE_QUERY},
                    "passages": [{"text": text} for text in EXAMPLE_DOCUMENTS],
                }
            ]
        }
    )

    model: ModelName = None
    query: Passage
    passages: list[Passage] = Field(min_length=1)
    truncate: Literal["NONE", "END"] = Field(
        default="END",
        description="NONE: refuse a passage that is too long, instead of cutting its end.",
    )


class NimResult(BaseModel):
    """One passage's place."""

    index: int
    logit: float


class NimResponse(BaseModel):
    """Passages, best first."""

    rankings: list[NimResult]
    usage: Usage


def _questions(request: NimRequest) -> list[Question]:
    passages = [passage.text for passage in request.passages]
    return [Question(request.query.text, passages, refuse_long=request.truncate == "NONE")]


def _reply(_: NimRequest, answer: Answer) -> NimResponse:
    return NimResponse(
        rankings=[
            NimResult(index=ranked.index, logit=ranked.score)
            for ranked in answer.ranked(None, raw=True)
        ],
        usage=Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
    )


NIM = Dialect("nim", detail_error, DetailError)
RANKING = Form(NIM, NimRequest, NimResponse, _questions, _reply)
