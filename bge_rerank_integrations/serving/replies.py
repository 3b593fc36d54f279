"""Bodies, written as JSON once."""

from __future__ import annotations

from fastapi import Response
from pydantic import BaseModel

from bge_rerank_integrations.serving.dialects.base import Dialect
from bge_rerank_integrations.serving.problems import RETRY_LATER, Problem


def json_reply(
    body: BaseModel,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    keep_nulls: bool = False,
) -> Response:
    """A body as a response.

    :param keep_nulls: write fields that are None.
    """
    content = body.model_dump_json(exclude_none=not keep_nulls)
    return Response(content, status, headers, "application/json")


def error_reply(dialect: Dialect, problem: Problem, retry_after_s: int) -> Response:
    """A problem in a dialect's words."""
    status = dialect.status(problem.kind)
    headers = {}
    if problem.kind in RETRY_LATER:
        headers["Retry-After"] = str(retry_after_s)
    return json_reply(dialect.error_body(status, problem), status, headers, keep_nulls=True)
