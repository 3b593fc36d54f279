"""NVIDIA NIM: ``/v1/ranking``, which returns logits."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

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
from bge_rerank_integrations.serving.dialects.requests import ApiRequest, StrictModel
from bge_rerank_integrations.serving.dialects.voyage import DetailError, detail_error
from bge_rerank_integrations.setting_types import LongDocuments


class NimText(StrictModel):
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
    # LiteLLM sends the one, RAGFlow the other
    top_k: TopN = Field(default=None, validation_alias=AliasChoices("top_k", "top_n"))


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
    long_documents: LongDocuments | None = "refuse" if request.truncate == "NONE" else None
    return ScoreRequest(
        request.query.text, passages, normalize=False, long_documents=long_documents
    )


def _to_response(request: NimRequest, result: ScoreResult) -> NimResponse:
    return NimResponse(
        rankings=[
            NimResult(index=ranked.index, logit=ranked.score)
            for ranked in result.ranked(request.top_k)
        ],
        usage=usage_of(result),
    )


NIM = Dialect("nim", detail_error, DetailError)
RANKING = Operation(NIM, NimRequest, NimResponse, _to_score_request, _to_response)
