"""The paths of the dialects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, Union

from fastapi import FastAPI, Request, Response
from pydantic import Discriminator, Tag

from bge_rerank_integrations.serving.api_errors import FORM_TAGS, Kind
from bge_rerank_integrations.serving.metrics import Metrics
from bge_rerank_integrations.serving.responses import json_reply
from bge_rerank_integrations.serving.routes import Route
from bge_rerank_integrations.serving.service import RerankService

T = TypeVar("T")

_DOCUMENTED = (
    Kind.MALFORMED,
    Kind.INVALID,
    Kind.EMPTY,
    Kind.TOO_LARGE,
    Kind.MEDIA_TYPE,
    Kind.OVERLOADED,
    Kind.SCORING,
    Kind.UNAVAILABLE,
    Kind.DEADLINE,
)


class _ClientGoneError(Exception):
    """The client closed the connection before its answer was ready."""


def add_endpoint(
    app: FastAPI, service: RerankService, metrics: Metrics, route: Route, path: str
) -> None:
    """Answer a route's forms on one of its paths."""
    forms = {form.request: form for form in route.forms}

    async def endpoint(request: Request, body: Any) -> Response:
        form = forms[type(body)]
        request.state.dialect = form.dialect
        questions = form.questions(body)
        metrics.documents.observe(sum(len(question.documents) for question in questions))
        start = time.perf_counter()
        try:
            answer = await _while_connected(request, service.answer(questions))
        except _ClientGoneError:
            # nobody reads it; the figures show it
            return Response(status_code=499)
        headers = {"Server-Timing": f"rerank;dur={(time.perf_counter() - start) * 1e3:.1f}"}
        return json_reply(form.reply(body, answer), headers=headers, keep_nulls=form.keep_nulls)

    # here, because the type differs from route to route
    endpoint.__annotations__["body"] = _body_type(route)
    app.post(
        path,
        name=f"{route.forms[0].dialect.name} {path}",
        response_model=None,
        responses=_responses(route),
        openapi_extra=_path_parameters(path),
    )(endpoint)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it when the client goes away.

    :param request: whose body was read already.
    :raises _ClientGoneError: if the client went first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _body_type(route: Route) -> Any:
    if len(route.forms) == 1:
        return route.forms[0].request

    def tag(body: object) -> str:
        return FORM_TAGS[route.forms.index(route.form_of(body))]

    tagged = [
        Annotated[form.request, Tag(name)]
        for name, form in zip(FORM_TAGS, route.forms, strict=True)
    ]
    return Annotated[Union[tuple(tagged)], Discriminator(tag)]  # noqa: UP007  # made at run time


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    """The answers that OpenAPI shows, the errors of all the path's dialects among them."""
    schemas: dict[int, dict[Any, None]] = {200: {form.response: None for form in route.forms}}
    for form in route.forms:
        for kind in _DOCUMENTED:
            status = form.dialect.status(kind)
            schemas.setdefault(status, {})[form.dialect.error_schema] = None
    return {
        status: {"model": Union[tuple(models)]}  # noqa: UP007  # made at run time
        for status, models in schemas.items()
    }


def _path_parameters(path: str) -> dict[str, Any] | None:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    return {"parameters": parameters} if parameters else None
