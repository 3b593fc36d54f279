"""Cohere v2: ``/v2/rerank``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    AtLeastOne,
    Dialect,
    Flag,
    Highlight,
    Instruction,
    Items,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    TopNOrAll,
    Truncation,
)
from bge_rerank_integrations.serving.dialects.common import (
    HighlightedDocument,
    highlights_of,
    to_results,
)
from bge_rerank_integrations.serving.dialects.requests import ApiRequest

# Cohere bills one search per 100 documents: https://docs.cohere.com/docs/rerank-overview
_DOCUMENTS_IN_A_SEARCH = 100


class CohereRequest(ApiRequest):
    """Documents to rank for a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE, "model": "rerank-v4.0-pro", "top_n": 2}]}
    )

    model: ModelName = None
    query: str
    documents: Items[str]
    top_n: TopNOrAll = None
    return_documents: Flag = Field(
        default=False, description="Repeat the texts in the result, as version 1 did."
    )
    max_tokens_per_doc: AtLeastOne | None = Field(
        default=None, description="Truncate each document to this number of tokens."
    )
    instruction: Instruction = None
    highlight: Highlight = False


class ApiVersion(BaseModel):
    """The API's version."""

    version: str = "2"


class BilledUnits(BaseModel):
    """Billed units, counted as Cohere does."""

    search_units: int


class Tokens(BaseModel):
    """Number of tokens that the model read."""

    input_tokens: int


class Meta(Truncation):
    """Counts."""

    api_version: ApiVersion = ApiVersion()
    billed_units: BilledUnits
    tokens: Tokens


class CohereResponse(BaseModel):
    """Documents, best first."""

    id: str
    results: list[HighlightedDocument]
    meta: Meta


class CohereError(BaseModel):
    """An error."""

    message: str


def _error_body(_: int, error: ApiError) -> CohereError:
    return CohereError(message=error.message)


def _to_score_request(request: CohereRequest) -> ScoreRequest:
    return ScoreRequest(
        request.query,
        request.documents,
        max_document_tokens=request.max_tokens_per_doc,
        instruction=request.instruction,
        highlight=request.highlight,
        top_n=request.top_n or None,
    )


def _to_response(request: CohereRequest, result: ScoreResult) -> CohereResponse:
    searches = -(-len(request.documents) // _DOCUMENTS_IN_A_SEARCH)
    return CohereResponse(
        id=result.id,
        results=[
            HighlightedDocument(
                **ranked.model_dump(), highlights=highlights_of(result, ranked.index)
            )
            for ranked in to_results(
                result.ranked(request.top_n or None),
                request.documents if request.return_documents else None,
            )
        ],
        meta=Meta(
            billed_units=BilledUnits(search_units=searches),
            tokens=Tokens(input_tokens=result.tokens),
            truncated_documents=result.scores.usage.truncated_documents,
            query_truncated=result.scores.usage.query_truncated,
        ),
    )


COHERE = Dialect("cohere", _error_body, CohereError, {ErrorKind.INVALID: 400, ErrorKind.EMPTY: 400})
RERANK_V2 = Operation(COHERE, CohereRequest, CohereResponse, _to_score_request, _to_response)
