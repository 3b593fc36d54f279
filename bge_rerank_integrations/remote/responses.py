"""What a service answered, believed only as far as it can be checked."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bge_rerank_integrations.errors import RemoteError
from bge_rerank_integrations.ranking import RankedDocument
from bge_rerank_integrations.remote.dialects import RemoteDialect

_MAX_QUOTED = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over HTTP.

    :param headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def content_type(self) -> str:
        """What the service calls its content."""
        return self.headers.get("content-type", "no type of content")


def read_json(reply: Reply) -> Any:
    """The body of an answer.

    :raises RemoteError: if it is not JSON: truncated, or a proxy's page.
    """
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError) as error:
        raise RemoteError(
            f"the service answered {reply.status} with what is not JSON ({reply.content_type})",
            reply.status,
        ) from error


def read_results(dialect: RemoteDialect, answer: Any, count: int) -> list[RankedDocument]:
    """The results for ``count`` documents, in the service's order.

    Texts in the answer are not looked at: the caller has its own.

    :raises RemoteError: if a result is missing, there twice, for a document that was not sent, or
        has no finite score.
    """
    results = _at(answer, dialect.results)
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
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise RemoteError(
            f"{count} documents were sent, and a result has {dialect.index} {index!r:.80}"
        )
    if not isinstance(score, (int, float)) or isinstance(score, bool) or not math.isfinite(score):
        raise RemoteError(
            f"the {dialect.score} of document {index} must be a finite number, got {score!r:.80}"
        )
    return RankedDocument(index, float(score))


def read_tokens(dialect: RemoteDialect, answer: Any) -> int:
    """The tokens that the service counted; 0 where it does not say."""
    tokens = _at(answer, dialect.tokens) if dialect.tokens else 0
    is_count = isinstance(tokens, (int, float)) and not isinstance(tokens, bool)
    return int(tokens) if is_count and math.isfinite(tokens) else 0


def error_message(reply: Reply, secret: str | None) -> str:
    """What the service says of its error, shortened, and without the key."""
    try:
        said = _said(json.loads(reply.content))
    except (ValueError, RecursionError):
        said = reply.content_type
    if secret is not None:
        said = said.replace(secret, "[key]")
    said = " ".join(said.split())[:_MAX_QUOTED]
    return f"the service answered {reply.status}: {said}"


def _said(body: Any) -> str:
    """The message, wherever the services put it."""
    if isinstance(body, list) and body:
        return _said(body[0])
    if isinstance(body, Mapping):
        for key in ("message", "msg", "detail", "error", "errors"):
            if body.get(key):
                return _said(body[key])
    return body if isinstance(body, str) else json.dumps(body)


def _at(answer: Any, path: Sequence[str]) -> Any:
    for key in path:
        answer = answer.get(key) if isinstance(answer, Mapping) else None
    return answer
