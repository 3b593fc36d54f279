"""Parse and validate the responses of a service."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bge_rerank_integrations.checks import is_finite, is_int
from bge_rerank_integrations.errors import RemoteError
from bge_rerank_integrations.ranking import RankedDocument
from bge_rerank_integrations.remote.dialects import RemoteDialect

_MAX_QUOTED = 200


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response.

    :param headers: header names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def content_type(self) -> str:
        """The header Content-Type."""
        return self.headers.get("content-type", "no type of content")


def read_json(response: HttpResponse) -> Any:
    """Parse the body of a response.

    :raises RemoteError: if it is not JSON, e.g. truncated, or the page of a proxy.
    """
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise RemoteError(
            f"the service answered {response.status}, and its body is not JSON "
            f"({response.content_type})",
            response.status,
        ) from error


def read_results(dialect: RemoteDialect, body: Any, count: int) -> list[RankedDocument]:
    """Read the results of ``count`` documents, in the service's order.

    Texts in the response are ignored: the caller has its own.

    :raises RemoteError: if a result is missing or repeated, names a document that was not sent,
        or has no finite score.
    """
    results = _at(body, dialect.results)
    if not isinstance(results, list):
        raise RemoteError(f"the answer has no list at {'.'.join(dialect.results) or 'its top'}")
    read = [_read_result(dialect, result, count) for result in results]
    seen = Counter(result.index for result in read)
    for index in range(count):
        if seen[index] != 1:
            raise RemoteError(
                f"the answer must have one result for document {index} of {count}, "
                f"it has {seen[index]}"
            )
    return read


def _read_result(dialect: RemoteDialect, result: Any, count: int) -> RankedDocument:
    if not isinstance(result, Mapping):
        raise RemoteError(f"a result must be an object, got {result!r:.80}")
    index, score = result.get(dialect.index), result.get(dialect.score)
    if not is_int(index, 0) or index >= count:
        raise RemoteError(
            f"{count} documents were sent, and a result has {dialect.index} {index!r:.80}"
        )
    if not is_finite(score):
        raise RemoteError(
            f"the {dialect.score} of document {index} must be a finite number, got {score!r:.80}"
        )
    return RankedDocument(index, float(score))


def read_tokens(dialect: RemoteDialect, body: Any) -> int:
    """Read the service's number of tokens; 0 if it reports none."""
    tokens = _at(body, dialect.tokens) if dialect.tokens else 0
    return int(tokens) if is_finite(tokens) else 0


def error_message(response: HttpResponse, secret: str | None) -> str:
    """The service's error message, shortened and without the API key."""
    try:
        message = _message_in(json.loads(response.content))
    except (ValueError, RecursionError):
        message = response.content_type
    if secret is not None:
        message = message.replace(secret, "[key]")
    message = " ".join(message.split())[:_MAX_QUOTED]
    return f"the service answered {response.status}: {message}"


def _message_in(body: Any) -> str:
    """Find the message in the error formats of the services."""
    if isinstance(body, list) and body:
        return _message_in(body[0])
    if isinstance(body, Mapping):
        for key in ("message", "msg", "detail", "error", "errors"):
            if body.get(key):
                return _message_in(body[key])
    return body if isinstance(body, str) else json.dumps(body)


def _at(body: Any, path: Sequence[str]) -> Any:
    for key in path:
        body = body.get(key) if isinstance(body, Mapping) else None
    return body
