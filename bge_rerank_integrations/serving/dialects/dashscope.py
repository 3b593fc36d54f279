"""Alibaba's DashScope: its own path and body, and ``/reranks`` with the common request.

Source: https://help.aliyun.com/zh/model-studio/text-rerank-api
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from bge_rerank_integrations.serving.api_errors import ApiError, ErrorKind
from bge_rerank_integrations.serving.dialects import common
from bge_rerank_integrations.serving.dialects.base import (
    EXAMPLE,
    Dialect,
    Documents,
    Flag,
    Instruction,
    ModelName,
    Operation,
    ScoreRequest,
    ScoreResult,
    TopN,
)
from bge_rerank_integrations.serving.dialects.requests import ApiRequest, StrictModel
from bge_rerank_integrations.serving.dialects.voyage import TotalTokens, total_tokens


class DashScopeInput(StrictModel):
    """Documents to rank for a query."""

    query: str
    documents: Documents


class DashScopeParameters(StrictModel):
    """How to rank."""

    top_n: TopN = None
    return_documents: Flag = Field(default=False, description="Repeat the texts in the result.")
    instruct: Instruction = None


class DashScopeRequest(ApiRequest):
    """Documents to rank for a query, and how to rank them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": EXAMPLE, "parameters": {"top_n": 2}}]}
    )

    model: ModelName = None
    input: DashScopeInput
    parameters: DashScopeParameters = DashScopeParameters()


class DashScopeOutput(BaseModel):
    """Documents, best first."""

    results: list[common.RankedDocument]


class DashScopeResponse(BaseModel):
    """The API's envelope."""

    output: DashScopeOutput
    usage: TotalTokens
    request_id: str


class DashScopeError(BaseModel):
    """An error."""

    code: str
    message: str


def _error_body(_: int, error: ApiError) -> DashScopeError:
    return DashScopeError(code=error.kind.value, message=error.message)


def _to_score_request(request: DashScopeRequest) -> ScoreRequest:
    return ScoreRequest(
        request.input.query, request.input.documents, instruction=request.parameters.instruct
    )


def _to_response(request: DashScopeRequest, result: ScoreResult) -> DashScopeResponse:
    documents = request.input.documents if request.parameters.return_documents else None
    return DashScopeResponse(
        output=DashScopeOutput(
            results=common.to_results(result.ranked(request.parameters.top_n), documents)
        ),
        usage=total_tokens(result),
        request_id=result.id,
    )


DASHSCOPE = Dialect(
    "dashscope", _error_body, DashScopeError, {ErrorKind.INVALID: 400, ErrorKind.EMPTY: 400}
)
RERANK = Operation(DASHSCOPE, DashScopeRequest, DashScopeResponse, _to_score_request, _to_response)
RERANKS = replace(common.RERANK, dialect=DASHSCOPE)
