"""DeepInfra: ``/v1/inference/{model}``, queries and documents in pairs.

Source: https://deepinfra.com/docs/inference
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel

from bge_rerank_integrations.serving.api_errors import ApiError
from bge_rerank_integrations.serving.dialects import vllm
from bge_rerank_integrations.serving.dialects.base import Dialect, ScoreResult


class DeepInfraResponse(BaseModel):
    """Scores in input order."""

    scores: list[float]
    input_tokens: int
    request_id: str


class DeepInfraErrorDetail(BaseModel):
    """What went wrong."""

    error: str


class DeepInfraError(BaseModel):
    """An error."""

    detail: DeepInfraErrorDetail


def _error_body(_: int, error: ApiError) -> DeepInfraError:
    return DeepInfraError(detail=DeepInfraErrorDetail(error=error.message))


def _to_response(_: vllm.VllmScoreRequest, result: ScoreResult) -> DeepInfraResponse:
    return DeepInfraResponse(
        scores=list(result.scores), input_tokens=result.tokens, request_id=result.id
    )


DEEPINFRA = Dialect("deepinfra", _error_body, DeepInfraError)
INFERENCE = replace(
    vllm.SCORE, dialect=DEEPINFRA, response=DeepInfraResponse, to_response=_to_response
)
