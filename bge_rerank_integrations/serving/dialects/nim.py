"""NVIDIA NIM: ``/v1/ranking``, which returns logits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    ApiRequest,
    Dialect,
    Items,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
)
from bge_rerank_integrations.serving.dialects.common import Usage, usage_of
from bge_rerank_integrations.serving.dialects.voyage import DetailError, detail_error


class NimText(ApiRequest):
    """A query or a passage."""

    text: str


class NimRequest(ApiRequest):
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
    query: NimText
    passages: Items[NimText]
    truncate: Literal["NONE", "END"] = Field(
        default="END",
        description="NONE: reject a passage that is too long, instead of truncating it.",
    )


class NimResult(BaseModel):
    """One ranked passage."""

    index: int
    logit: float


class NimResponse(BaseModel):
    """Passages, best first."""

    rankings: list[NimResult]
    usage: Usage


def _to_score_request(request: NimRequest) -> ScoreRequest:
    passages = [passage.text for passage in request.passages]
    return ScoreRequest(
        request.query.text, passages, normalize=False, refuse_long=request.truncate == "NONE"
    )


def _to_response(_: NimRequest, result: ScoreResult) -> NimResponse:
    return NimResponse(
        rankings=[
            NimResult(index=ranked.index, logit=ranked.score) for ranked in result.ranked(None)
        ],
        usage=usage_of(result),
    )


NIM = Dialect("nim", detail_error, DetailError)
RANKING = Operation(NIM, NimRequest, NimResponse, _to_score_request, _to_response)
