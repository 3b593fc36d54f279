"""The paths of each dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from starlette.routing import compile_path

from bge_rerank_integrations.serving.dialects import (
    azion,
    cloudflare,
    cohere,
    common,
    dashscope,
    deepinfra,
    fireworks,
    infinity,
    mixedbread,
    nim,
    tei,
    vllm,
    voyage,
    weaviate,
)
from bge_rerank_integrations.serving.dialects.base import Dialect, Operation


@dataclass(frozen=True)
class Route:
    """Paths with the same operations.

    Clients of a service use the paths without its name. Where two services use one path for
    different bodies, each also has a path below its own name.

    :param operations: chosen by their markers; the first one is the default.
    """

    paths: tuple[str, ...]
    operations: tuple[Operation[Any], ...]

    def operation_of(self, body: object) -> Operation[Any]:
        """Choose the operation of a request by the markers in its body, null being none."""
        given = body if isinstance(body, Mapping) else {}
        marked = (
            operation
            for operation in self.operations
            if any(given.get(marker) is not None for marker in operation.markers)
        )
        return next(marked, self.operations[0])


ROUTES = (
    Route(("/rerank",), (common.RERANK, tei.RERANK, voyage.RERANK, weaviate.RERANK)),
    Route(("/v1/rerank",), (common.RERANK, voyage.RERANK)),
    Route(("/v2/rerank",), (cohere.RERANK_V2,)),
    Route(("/score", "/v1/score", "/vllm/score", "/vllm/v1/score"), (vllm.SCORE,)),
    Route(("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), (vllm.RERANK,)),
    Route(("/infinity/rerank",), (infinity.RERANK,)),
    Route(("/tei/rerank",), (tei.RERANK,)),
    Route(("/voyage/rerank", "/voyage/v1/rerank"), (voyage.RERANK,)),
    Route(("/v1/ranking", "/v1/retrieval/{model:path}/reranking"), (nim.RANKING,)),
    Route(("/v1/reranking",), (mixedbread.RERANKING,)),
    Route(("/inference/v1/rerank",), (fireworks.RERANK,)),
    Route(("/api/v1/services/rerank/text-rerank/text-rerank",), (dashscope.RERANK,)),
    Route(("/compatible-api/v1/reranks",), (dashscope.RERANKS,)),
    Route(("/v1/inference/{model:path}",), (deepinfra.INFERENCE,)),
    Route(("/weaviate/rerank",), (weaviate.RERANK,)),
    Route(("/azion/ai/run/{model}",), (azion.RERANK, azion.SCORE)),
    Route(
        ("/client/v4/accounts/{account_id}/ai/run/@cf/baai/bge-reranker-base",), (cloudflare.RUN,)
    ),
)


@cache
def _patterns() -> list[tuple[Any, str, Route]]:
    return [(compile_path(path)[0], path, route) for route in ROUTES for path in route.paths]


def find(path: str) -> tuple[str, Route] | None:
    """Find the path template and the route of a request's path; None if there is no route."""
    matches = ((template, route) for regex, template, route in _patterns() if regex.match(path))
    return next(matches, None)


def dialect_at(path: str, body: object = None) -> Dialect:
    """The dialect in which an error on this path is reported."""
    found = find(path)
    return common.COMMON if found is None else found[1].operation_of(body).dialect
