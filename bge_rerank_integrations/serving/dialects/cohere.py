"""Cohere v2: ``/v2/rerank``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import Kind, Problem
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    Answer,
    AtLeastOne,
    Dialect,
    Form,
    ModelName,
    Question,
    Request,
    TopN,
)

# what Cohere counts as one search, for its bill: https://docs.cohere.com/docs/rerank-overview
_DOCUMENTS_IN_A_SEARCH = 100


class CohereRequest(Request):
    """Documents to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE, "model": "rerank-v4.0-pro", "top_n": 2}]}
    )

    model: ModelName = None
    query: str
    documents: list[str] = Field(min_length=1)
    top_n: TopN = None
    max_tokens_per_doc: AtLeastOne | None = Field(
        default=None, description="Cut each document after this number of tokens."
    )


class CohereResult(BaseModel):
    """One document's place."""

    index: int
    relevance_score: float


class ApiVersion(BaseModel):
    """The API's version."""

    version: str = "2"


class BilledUnits(BaseModel):
    """What Cohere would count."""

    search_units: int


class Tokens(BaseModel):
    """Tokens that the model read."""

    input_tokens: int


class Meta(BaseModel):
    """Counts."""

    api_version: ApiVersion = ApiVersion()
    billed_units: BilledUnits
    tokens: Tokens


class CohereResponse(BaseModel):
    """Documents, best first."""

    id: str
    results: list[CohereResult]
    meta: Meta


class CohereError(BaseModel):
    """An error."""

    message: str


def _error_body(_: int, problem: Problem) -> CohereError:
    return CohereError(message=problem.message)


def _questions(request: CohereRequest) -> list[Question]:
    return [Question(request.query, request.documents, request.max_tokens_per_doc)]


def _reply(request: CohereRequest, answer: Answer) -> CohereResponse:
    searches = -(-len(request.documents) // _DOCUMENTS_IN_A_SEARCH)
    return CohereResponse(
        id=answer.id,
        results=[
            CohereResult(index=ranked.index, relevance_score=ranked.score)
            for ranked in answer.ranked(request.top_n)
        ],
        meta=Meta(
            billed_units=BilledUnits(search_units=searches),
            tokens=Tokens(input_tokens=answer.tokens),
        ),
    )


COHERE = Dialect("cohere", _error_body, CohereError, {Kind.INVALID: 400, Kind.EMPTY: 400})
RERANK_V2 = Form(COHERE, CohereRequest, CohereResponse, _questions, _reply)
