"""Parse and validate the responses of a service."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..checks import is_finite, is_int
from ..errors import RemoteError
from ..ranking import RankedDocument, Scores, TokenUsage
from .dialects import Dialect

# what this project's server says of a call in its headers, in every dialect
TRUNCATED_DOCUMENTS = "x-truncated-documents"
TRUNCATED_QUERY = "x-truncated-query"

_MAX_QUOTED = 200
_MAX_DIGITS = 9


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
    dialect: Dialect,
    answers: Iterable[tuple[int, HttpResponse]],
    *,
    normalize: bool,
    model: str,
) -> tuple[Scores, list[int]]:
    """Join the answers of a call's requests.

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
        usages.append(_usage(dialect, response, body))
        named = body.get("model") if isinstance(body, Mapping) else None
        model = named if isinstance(named, str) and named else model
    # the service ranks by logits, many of which become a score of 1.0
    order = [result.index for result in results]
    scores = Scores.from_logits(
        [result.score for result in sorted(results, key=lambda result: result.index)],
        # other services report normalized scores, or logits on request
        normalize=normalize and dialect.wire.answers_logits,
        usage=TokenUsage.joined(usages),
        model=model,
    )
    scores.are_probabilities = normalize
    return scores, order


def read_results(dialect: Dialect, body: Any, count: int) -> list[RankedDocument]:
    """Read the results of ``count`` documents, in the service's order.

    Texts in the response are ignored: the caller has its own.

    :raises RemoteError: if a result is missing or repeated, names a document that was not sent,
        or has no finite score.
    """
    results = dialect.results_in(body)
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


def _read_result(dialect: Dialect, result: Any, count: int) -> RankedDocument:
    if not isinstance(result, Mapping):
        raise RemoteError(f"a result must be an object, got {result!r:.80}")
    index_name, score_name = dialect.result_names
    index, score = result.get(index_name), result.get(score_name)
    if not is_int(index, 0) or index >= count:
        raise RemoteError(
            f"{count} documents were sent, and a result has {index_name} {index!r:.80}"
        )
    try:
        if is_finite(score):
            return RankedDocument(index, float(score))
    except OverflowError:
        # an integer of hundreds of digits
        pass
    raise RemoteError(
        f"the {score_name} of document {index} must be a finite number, got {score!r:.80}"
    )


def _usage(dialect: Dialect, response: HttpResponse, body: Any) -> TokenUsage:
    """What the service says of its reading; 0 tokens if it reports none."""
    truncated = response.headers.get(TRUNCATED_DOCUMENTS, "")
    is_count = truncated.isdecimal() and len(truncated) <= _MAX_DIGITS
    return TokenUsage(
        total_tokens=dialect.tokens_in(body),
        truncated_documents=int(truncated) if is_count else 0,
        query_truncated=response.headers.get(TRUNCATED_QUERY) == "true",
    )


def error_message(response: HttpResponse, secret: str | None) -> str:
    """The service's error message, shortened and without the API key or control characters."""
    try:
        message = _message_in(json.loads(response.content))
    except (ValueError, RecursionError):
        message = response.content_type
    if secret is not None:
        message = message.replace(secret, "[key]")
    shown = "".join(character if character.isprintable() else " " for character in message)
    return f"the service answered {response.status}: {' '.join(shown.split())[:_MAX_QUOTED]}"


def _message_in(body: Any) -> str:
    """Find the message in the error formats of the services."""
    if isinstance(body, list) and body:
        return _message_in(body[0])
    if isinstance(body, Mapping):
        for key in ("message", "msg", "detail", "error", "errors"):
            if body.get(key):
                return _message_in(body[key])
    return body if isinstance(body, str) else json.dumps(body)
