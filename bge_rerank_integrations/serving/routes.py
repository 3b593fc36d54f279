"""Which dialects are spoken where."""

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
    infinity,
    nim,
    tei,
    vllm,
    voyage,
)
from bge_rerank_integrations.serving.dialects.base import Dialect, Form


@dataclass(frozen=True)
class Route:
    """Paths that answer alike.

    Paths without a service's name are what its clients ask for; where two services want the same
    path in different words, each has its own below its name.

    :param forms: what may be asked there; the first is meant where no other's marker is found.
    """

    paths: tuple[str, ...]
    forms: tuple[Form[Any], ...]

    def form_of(self, body: object) -> Form[Any]:
        """The form that a request's body is meant in."""
        keys = body.keys() if isinstance(body, Mapping) else ()
        marked = (form for form in self.forms if form.marker is not None and form.marker in keys)
        return next(marked, self.forms[0])


ROUTES = (
    Route(("/rerank",), (common.RERANK, tei.RERANK)),
    Route(("/v1/rerank",), (common.RERANK,)),
    Route(("/v2/rerank",), (cohere.RERANK_V2,)),
    Route(("/score", "/v1/score", "/vllm/score", "/vllm/v1/score"), (vllm.SCORE,)),
    Route(("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), (vllm.RERANK,)),
    Route(("/infinity/rerank",), (infinity.RERANK,)),
    Route(("/tei/rerank",), (tei.RERANK,)),
    Route(("/voyage/v1/rerank",), (voyage.RERANK,)),
    Route(("/v1/ranking",), (nim.RANKING,)),
    Route(("/azion/ai/run/{model}",), (azion.RERANK, azion.SCORE)),
    Route(
        ("/client/v4/accounts/{account_id}/ai/run/@cf/baai/bge-reranker-base",), (cloudflare.RUN,)
    ),
)


@cache
def _patterns() -> list[tuple[Any, str, Route]]:
    return [(compile_path(path)[0], path, route) for route in ROUTES for path in route.paths]


def find(path: str) -> tuple[str, Route] | None:
    """The route of a request's path, and its template; None where there is none."""
    matches = ((template, route) for regex, template, route in _patterns() if regex.match(path))
    return next(matches, None)


def dialect_at(path: str, body: object = None) -> Dialect:
    """Who is probably asking: the dialect to put an error in."""
    found = find(path)
    return common.COMMON if found is None else found[1].form_of(body).dialect
