"""Parse and validate the responses of a service."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bge_rerank_integrations.checks import is_finite, is_int
from bge_rerank_integrations.errors import RemoteError
from bge_rerank_integrations.ranking import RankedDocument, Scores, TokenUsage
from bge_rerank_integrations.remote.dialects import RemoteDialect

# what this project's server says of a call in its headers, in every dialect
TRUNCATED_DOCUMENTS = "x-truncated-documents"
TRUNCATED_QUERY = "x-truncated-query"

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


def read_scores(
    dialect: RemoteDialect,
    answers: Iterable[tuple[int, HttpResponse]],
    *,
    normalize: bool,
    model: str,
) -> tuple[Scores, list[int]]:
    """Read the answers to the requests of one call.

    :param answers: for each request its number of documents, and the response.
    :param normalize: report scores from 0 to 1, also where the service answers logits.
    :param model: the model's name where no answer has one.
    :returns: scores in input order, and the documents' indices in the service's order.
    :raises RemoteError: see :func:`read_json` and :func:`read_results`.
    """
    results: list[RankedDocument] = []
    usages = []
    for count, response in answers:
        body, first = read_json(response), len(results)
        results += [
            RankedDocument(first + result.index, result.score)
            for result in read_results(dialect, body, count)
        ]
        usages.append(read_usage(dialect, response, body))
        named = _at(body, ("model",))
        model = named if isinstance(named, str) and named else model
    # the service ranks by logits, many of which become a score of 1.0
    order = [result.index for result in results]
    scores = Scores.from_logits(
        [result.score for result in sorted(results, key=lambda result: result.index)],
        # other dialects report normalized scores, or logits on request
        normalize=normalize and dialect.answers_logits,
        usage=TokenUsage.joined(usages),
        model=model,
    )
    scores.are_probabilities = normalize
    return scores, order


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


def read_usage(dialect: RemoteDialect, response: HttpResponse, body: Any) -> TokenUsage:
    """Read what the service says of its reading; 0 tokens if it reports none.

    :param body: of the response, parsed.
    """
    tokens = _at(body, dialect.tokens) if dialect.tokens else 0
    truncated = response.headers.get(TRUNCATED_DOCUMENTS, "")
    return TokenUsage(
        total_tokens=int(tokens) if is_finite(tokens) else 0,
        truncated_documents=int(truncated) if truncated.isdecimal() else 0,
        query_truncated=response.headers.get(TRUNCATED_QUERY) == "true",
    )


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
