"""vLLM: ``/score``, and a ``/rerank`` that always returns the documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from typing_extensions import Self

from bge_rerank_integrations.serving.api_errors import ErrorKind
from bge_rerank_integrations.serving.dialects.base import (
    DOCUMENT_SCHEMA,
    EXAMPLE,
    EXAMPLE_DOCUMENTS,
    EXAMPLE_QUERY,
    Dialect,
    Documents,
    DocumentText,
    Flag,
    Instruction,
    Items,
    JsonInt,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    Text,
)
from bge_rerank_integrations.serving.dialects.common import Usage, usage_of
from bge_rerank_integrations.serving.dialects.infinity import OpenAIError, openai_error
from bge_rerank_integrations.serving.dialects.requests import ApiRequest


def _listed(texts: Any) -> Any:
    return [texts] if isinstance(texts, str) else texts


OneOrMore = Annotated[
    Items[DocumentText],
    BeforeValidator(_listed),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": DOCUMENT_SCHEMA, "minItems": 1},
            ]
        }
    ),
]

TokenLimit = Annotated[
    Annotated[int, Field(ge=-1), JsonInt] | None,
    Field(description="Truncate each document to this number of tokens; -1: as many as fit."),
]


class VllmRequest(ApiRequest):
    """Documents to rank for a query."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    model: ModelName = None
    query: str
    documents: Documents
    top_n: Annotated[int, Field(ge=0), JsonInt] = Field(
        default=0, description="How many results to return; 0 means all."
    )
    return_documents: Flag = Field(
        default=None, description="Ignored: the texts are repeated always."
    )
    truncate_prompt_tokens: TokenLimit = None
    use_activation: Flag = Field(default=True, description="False: logits instead of 0 to 1.")
    instruction: Instruction = None


class VllmScoreRequest(ApiRequest):
    """Texts to score: one with many, or two lists of the same length."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text_1": EXAMPLE_QUERY, "text_2": EXAMPLE_DOCUMENTS}]}
    )

    model: ModelName = None
    text_1: OneOrMore = Field(
        validation_alias=AliasChoices("text_1", "data_1", "queries"),
        description="One text, or as many as text_2 has; other lengths are refused.",
    )
    text_2: OneOrMore = Field(
        validation_alias=AliasChoices("text_2", "data_2", "documents", "items")
    )
    truncate_prompt_tokens: TokenLimit = None
    use_activation: Flag = Field(default=True, description="False: logits instead of 0 to 1.")
    instruction: Instruction = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.text_1) not in (1, len(self.text_2)):
            raise ValueError(
                "text_1 must be one text, or as many as text_2: "
                f"got {len(self.text_1)} and {len(self.text_2)}"
            )
        return self


class VllmResult(BaseModel):
    """One ranked document."""

    index: int
    document: Text
    relevance_score: float


class VllmResponse(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    usage: Usage
    results: list[VllmResult]


class VllmScore(BaseModel):
    """One pair's score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class VllmScoreResponse(BaseModel):
    """Scores in input order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmScore]
    usage: Usage


def _document_tokens(truncate_prompt_tokens: int | None) -> int | None:
    # -1 means as many as the model reads, which is the default
    return truncate_prompt_tokens if (truncate_prompt_tokens or 0) > 0 else None


def _to_score_request(request: VllmRequest) -> ScoreRequest:
    return _score_request(request, request.query, request.documents)


def _pairs_to_score_request(request: VllmScoreRequest) -> ScoreRequest:
    """One text against many, or texts in pairs."""
    query = request.text_1[0] if len(request.text_1) == 1 else request.text_1
    return _score_request(request, query, request.text_2)


def _score_request(
    request: VllmRequest | VllmScoreRequest, query: str | Sequence[str], documents: Sequence[str]
) -> ScoreRequest:
    return ScoreRequest(
        query,
        documents,
        normalize=request.use_activation is not False,
        max_document_tokens=_document_tokens(request.truncate_prompt_tokens),
        instruction=request.instruction,
    )


def _to_response(request: VllmRequest, result: ScoreResult) -> VllmResponse:
    return VllmResponse(
        id=result.id,
        model=result.model,
        usage=usage_of(result),
        results=[
            VllmResult(
                index=ranked.index,
                document=Text(text=request.documents[ranked.index]),
                relevance_score=ranked.score,
            )
            for ranked in result.ranked(request.top_n or None)
        ],
    )


def _to_score_response(_: VllmScoreRequest, result: ScoreResult) -> VllmScoreResponse:
    return VllmScoreResponse(
        id=result.id,
        created=result.created,
        model=result.model,
        data=[VllmScore(index=index, score=score) for index, score in enumerate(result.scores)],
        usage=usage_of(result),
    )


VLLM = Dialect("vllm", openai_error, OpenAIError, {ErrorKind.INVALID: 400, ErrorKind.EMPTY: 400})
RERANK = Operation(VLLM, VllmRequest, VllmResponse, _to_score_request, _to_response)
SCORE = Operation(
    VLLM,
    VllmScoreRequest,
    VllmScoreResponse,
    _pairs_to_score_request,
    _to_score_response,
    markers=("text_1", "data_1", "queries"),
)
