"""Answers and errors: filled in, and described, from the rows of the wire formats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Response
from pydantic_core import to_json

from ..highlighting import Span
from ..ranking import RankedDocument, Scores
from ..wire import Slot, Template, Wire
from .api_errors import RETRY_LATER, ApiError, ErrorKind
from .bodies import ScoreRequest

# Cohere bills one search per 100 documents: https://docs.cohere.com/docs/rerank-overview
_DOCUMENTS_IN_A_SEARCH = 100

_TEI_ERROR_TYPES = {
    ErrorKind.EMPTY: "empty",
    ErrorKind.UNAUTHORIZED: "unauthorized",
    ErrorKind.OVERLOADED: "overloaded",
    ErrorKind.UNAVAILABLE: "unhealthy",
    ErrorKind.DEADLINE: "backend",
    ErrorKind.SCORING: "backend",
    ErrorKind.INTERNAL: "backend",
}


@dataclass(frozen=True)
class ScoreResult:
    """The scores of an API request, from which every answer is filled in.

    :param scores: one per document, in input order, on the scale that was asked for.
    :param kept: the documents that are returned, in the answer's order.
    :param model: name of the model in responses.
    :param id: unique id of the response.
    :param created: Unix time in seconds.
    :param highlights: sentences of the returned documents, by index.
    :param highlight_tokens: number of tokens that the model read for them.
    """

    scores: Scores
    kept: Sequence[RankedDocument]
    model: str
    id: str
    created: int
    highlights: Mapping[int, Sequence[Span]] = field(default_factory=dict)
    highlight_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens that the model read."""
        return self.scores.total_tokens + self.highlight_tokens


def answer(wire: Wire, request: ScoreRequest, result: ScoreResult) -> Any:
    """The body of an answer."""
    usage = result.scores.usage
    values = {
        Slot.ID: result.id,
        Slot.MODEL: result.model,
        Slot.CREATED: result.created,
        Slot.QUERY: request.query,
        Slot.COUNT: len(result.kept),
        Slot.RETURNS_TEXTS: request.returns_texts,
        Slot.TOKENS: result.tokens,
        Slot.TRUNCATED_DOCUMENTS: usage.truncated_documents,
        Slot.QUERY_TRUNCATED: usage.query_truncated,
        Slot.SEARCHES: -(-len(request.documents) // _DOCUMENTS_IN_A_SEARCH),
    }
    truncated = set(usage.truncated)

    def each() -> Iterable[Mapping[Slot, Any]]:
        for kept in result.kept:
            index = kept.index
            values[Slot.INDEX] = index
            values[Slot.SCORE] = kept.score
            if request.returns_texts:
                values[Slot.TEXT] = request.documents[index]
            if request.returns_tokens:
                values[Slot.PAIR_TOKENS] = usage.pair_tokens[index]
                values[Slot.TRUNCATED] = index in truncated
            if request.highlights:
                values[Slot.HIGHLIGHTS] = result.highlights[index]
            yield values

    return _filled(wire.answer, values, each(), keep_nulls=wire.keep_nulls)


def status_of(wire: Wire, kind: ErrorKind) -> int:
    """The HTTP status of a kind of error."""
    return wire.statuses.get(kind.value, kind.status)


def error_response(wire: Wire, error: ApiError, retry_after_s: int) -> Response:
    """An error in a service's format.

    :param retry_after_s: seconds for ``Retry-After`` if the error itself does not tell them.
    """
    status = status_of(wire, error.kind)
    headers = {}
    if error.kind in RETRY_LATER:
        known_s = error.retry_after_s
        seconds = retry_after_s if known_s is None else max(math.ceil(known_s), 1)
        headers["Retry-After"] = str(seconds)
    if error.kind is ErrorKind.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    values = {
        Slot.STATUS: status,
        Slot.MESSAGE: error.message,
        Slot.KIND: error.kind.value,
        Slot.FIELD: error.field,
        Slot.TEI_ERROR_TYPE: _TEI_ERROR_TYPES.get(error.kind, "validation"),
    }
    body = _filled(wire.error, values, [values], keep_nulls=True)
    return json_response(body, status, headers)


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Serialize a body."""
    return Response(to_json(body), status, headers, "application/json")


def _filled(
    template: Template,
    values: Mapping[Slot, Any],
    results: Iterable[Mapping[Slot, Any]],
    *,
    keep_nulls: bool,
) -> Any:
    """A template with its values; without ``keep_nulls`` unknown ones are left out."""
    if isinstance(template, Slot):
        return values.get(template)
    if isinstance(template, list):
        return [
            _filled(item, its, (), keep_nulls=keep_nulls) for item in template for its in results
        ]
    if not isinstance(template, dict):
        return template
    filled = {}
    for name, part in template.items():
        value = _filled(part, values, results, keep_nulls=keep_nulls)
        if value is not None or keep_nulls or part is None:
            filled[name] = value
    # an object of nothing that is known is itself unknown
    return filled if filled or not template else None


def answer_schema(template: Template) -> dict[str, Any]:
    """The JSON schema of a template's bodies."""
    if template is Slot.HIGHLIGHTS:
        return _HIGHLIGHTS
    if isinstance(template, Slot):
        about = {"description": template.about} if template.about else {}
        least = {"minimum": 0} if template.json_type == "integer" else {}
        return {"type": template.json_type, **least, **about}
    if isinstance(template, list):
        items = {"items": answer_schema(template[0])} if template else {}
        return {"type": "array", **items}
    if not isinstance(template, dict):
        return {"const": template}
    return {
        "type": "object",
        "properties": {name: answer_schema(part) for name, part in template.items()},
        "required": [name for name, part in template.items() if not _may_be_unknown(part)],
    }


def _may_be_unknown(part: Template) -> bool:
    if isinstance(part, dict):
        return bool(part) and all(map(_may_be_unknown, part.values()))
    return part in (Slot.TEXT, Slot.PAIR_TOKENS, Slot.TRUNCATED, Slot.HIGHLIGHTS)


_HIGHLIGHTS: dict[str, Any] = {
    "type": "array",
    "items": answer_schema({"start": Slot.INDEX, "end": Slot.INDEX, "score": Slot.SCORE}),
    "description": "All sentences of the document, in its order; start and end count its Unicode "
    "characters.",
}
