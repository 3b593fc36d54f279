"""The bodies that Nebul, Cohere v1, Jina and Infinity share: ``/rerank`` and ``/v1/rerank``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from bge_rerank_integrations.highlighting import Span
from bge_rerank_integrations.ranking import Ranking
from bge_rerank_integrations.serving.api_errors import ApiError
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    AtLeastOne,
    Dialect,
    Documents,
    Flag,
    Highlight,
    Instruction,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    Text,
    TopNOrAll,
    Truncation,
)
from bge_rerank_integrations.serving.dialects.requests import ApiRequest


class CommonRequest(ApiRequest):
    """Documents to rank for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "top_n": 2}]})

    model: ModelName = None
    query: str
    documents: Documents
    top_n: TopNOrAll = None
    return_documents: Flag = Field(default=False, description="Repeat the texts in the result.")
    raw_scores: Flag = Field(default=False, description="Logits instead of scores from 0 to 1.")
    rank_fields: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Fields of each object in documents whose texts are read, in this order.",
    )
    max_tokens_per_doc: AtLeastOne | None = Field(
        default=None, description="Truncate each document to this number of tokens."
    )
    instruction: Instruction = Field(
        default=None, validation_alias=AliasChoices("instruction", "instruct")
    )

    @model_validator(mode="before")
    @classmethod
    def _read_rank_fields(cls, body: Any) -> Any:
        """Replace objects by what Cohere v1 reads of them."""
        match body:
            case {"rank_fields": [*names], "documents": [*documents]}:
                texts = [_join(names, document, i) for i, document in enumerate(documents)]
                return {**body, "documents": texts}
        return body


def _join(names: Sequence[Any], document: Any, index: int) -> Any:
    if not isinstance(document, Mapping):
        return document
    values = [document[name] for name in names if isinstance(name, str) and name in document]
    if not values:
        raise ValueError(f"documents[{index}] has none of the rank_fields")
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    )


class CountedRequest(CommonRequest):
    """Documents to rank for a query, and what may be told of each."""

    return_tokens: bool = Field(
        default=False, description="Tell each document's tokens, and whether it was truncated."
    )
    highlight: Highlight = False


class RankedDocument(BaseModel):
    """One ranked document."""

    index: int
    relevance_score: float
    document: Text | None = None


class HighlightedDocument(RankedDocument):
    """One ranked document, and its sentences where they are asked for."""

    highlights: list[Span] | None = Field(
        default=None,
        description="All sentences of the document, in its order; start and end count its Unicode "
        "characters.",
    )


class CommonResult(HighlightedDocument):
    """One ranked document, and what was read of it."""

    tokens: int | None = Field(default=None, description="Tokens of query and document.")
    truncated: bool | None = None


class Usage(Truncation):
    """Number of tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class CommonResponse(BaseModel):
    """Documents, best first."""

    object: Literal["rerank"] = "rerank"
    id: str
    model: str
    created: int
    results: list[CommonResult]
    usage: Usage


class ErrorDetail(BaseModel):
    """An error, as OpenAI's clients expect it."""

    message: str
    type: str
    param: str | None
    code: int


class CommonError(BaseModel):
    """One error for four clients.

    Cohere's reads ``message``, Jina's ``detail``, Nebul's and Infinity's ``error``.
    """

    message: str
    detail: str
    error: ErrorDetail


def error_detail(status: int, error: ApiError) -> ErrorDetail:
    """Format an error as OpenAI's clients expect it."""
    return ErrorDetail(message=error.message, type=error.kind.value, param=error.field, code=status)


def _error_body(status: int, error: ApiError) -> CommonError:
    return CommonError(
        message=error.message, detail=error.message, error=error_detail(status, error)
    )


def to_score_request(request: CommonRequest) -> ScoreRequest:
    """One score request."""
    return ScoreRequest(
        request.query,
        request.documents,
        normalize=not request.raw_scores,
        max_document_tokens=request.max_tokens_per_doc,
        instruction=request.instruction,
    )


def to_highlighting_request(request: CountedRequest) -> ScoreRequest:
    """One score request, and which documents to highlight."""
    asked = to_score_request(request)
    return replace(asked, highlight=request.highlight, top_n=request.top_n or None)


def highlights_of(result: ScoreResult, index: int) -> list[Span] | None:
    """The sentences of a document; None if it is not highlighted."""
    return list(result.highlights[index]) if index in result.highlights else None


def usage_of(result: ScoreResult) -> Usage:
    """What the model read, and what it did not."""
    usage = result.scores.usage
    return Usage(
        prompt_tokens=result.tokens,
        total_tokens=result.tokens,
        truncated_documents=usage.truncated_documents,
        query_truncated=usage.query_truncated,
    )


def to_results(ranking: Ranking, documents: Sequence[str] | None) -> list[RankedDocument]:
    """Format a ranking.

    :param documents: texts to repeat; None means not to.
    """
    return [
        RankedDocument(
            index=ranked.index,
            relevance_score=ranked.score,
            document=None if documents is None else Text(text=documents[ranked.index]),
        )
        for ranked in ranking
    ]


def _to_response(request: CountedRequest, result: ScoreResult) -> CommonResponse:
    usage, truncated = result.scores.usage, set(result.scores.usage.truncated)
    return CommonResponse(
        id=result.id,
        model=result.model,
        created=result.created,
        results=[
            CommonResult(
                index=ranked.index,
                relevance_score=ranked.score,
                document=(
                    Text(text=request.documents[ranked.index]) if request.return_documents else None
                ),
                tokens=usage.pair_tokens[ranked.index] if request.return_tokens else None,
                truncated=ranked.index in truncated if request.return_tokens else None,
                highlights=highlights_of(result, ranked.index),
            )
            for ranked in result.ranked(request.top_n or None)
        ],
        usage=usage_of(result),
    )


COMMON = Dialect("common", _error_body, CommonError)
RERANK = Operation(COMMON, CountedRequest, CommonResponse, to_highlighting_request, _to_response)
