"""What makes a dialect: request, response and error bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    FailFast,
    Field,
    JsonValue,
    WithJsonSchema,
)

from bge_rerank_integrations.highlighting import Span
from bge_rerank_integrations.ranking import Ranking, Scores, rank
from bge_rerank_integrations.serving.api_errors import STATUSES, ApiError, ErrorKind
from bge_rerank_integrations.setting_types import CallOverrides, LongDocuments

BodyT = TypeVar("BodyT", bound=BaseModel)
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What an API request asks the engine.

    :param query: one for all documents, or one for each.
    :param normalize: scores from 0 to 1; False means logits.
    :param max_document_tokens: truncate each document to this number of tokens; None means as the
        server's engine does.
    :param long_documents: what becomes of a document that does not fit; None means as the server's
        engine does.
    :param instruction: what a decoder is asked to judge; None means as the server's engine does.
    :param highlight: score the sentences of the documents, too; with one query for all.
    :param top_n: how many of the best documents are highlighted; None means all.
    """

    query: str | Sequence[str]
    documents: Sequence[str]
    normalize: bool = True
    max_document_tokens: int | None = None
    long_documents: LongDocuments | None = None
    instruction: str | None = None
    highlight: bool = False
    top_n: int | None = None

    @property
    def options(self) -> CallOverrides:
        """The options of the engine's call; others are the server's."""
        options = CallOverrides(normalize=self.normalize)
        if self.max_document_tokens is not None:
            options["max_document_tokens"] = self.max_document_tokens
        if self.long_documents is not None:
            options["long_documents"] = self.long_documents
        if self.instruction is not None:
            options["instruction"] = self.instruction
        return options


@dataclass(frozen=True)
class ScoreResult:
    """The scores of an API request, from which every dialect builds its response.

    :param scores: one per document, in input order, on the scale that was asked for.
    :param model: name of the model in responses.
    :param id: unique id of the response.
    :param created: Unix time in seconds.
    :param highlights: sentences of the highlighted documents, by index.
    :param highlight_tokens: number of tokens that the model read for them.
    """

    scores: Scores
    model: str
    id: str
    created: int
    highlights: Mapping[int, Sequence[Span]] = field(default_factory=dict)
    highlight_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens that the model read."""
        return self.scores.total_tokens + self.highlight_tokens

    def ranked(self, top_n: int | None) -> Ranking:
        """Rank the documents, best first."""
        return rank(self.scores, top_n=top_n)


@dataclass(frozen=True)
class Dialect:
    """A service's name and its error format.

    :param name: the service, in lower case.
    :param error_body: status and error → body.
    :param error_schema: type of the error body.
    :param statuses: status codes that differ from :data:`STATUSES`.
    """

    name: str
    error_body: Callable[[int, ApiError], BaseModel]
    error_schema: type[BaseModel]
    statuses: Mapping[ErrorKind, int] = field(default_factory=dict)

    def status(self, kind: ErrorKind) -> int:
        """The HTTP status code of a kind of error."""
        return self.statuses.get(kind, STATUSES[kind])


@dataclass(frozen=True)
class Operation(Generic[BodyT]):
    """One kind of request and its response.

    :param request: type of the request body.
    :param response: type of the response body.
    :param to_score_request: request body → what the engine scores.
    :param to_response: request body and scores → response body.
    :param markers: fields by which this operation is told from the others on the same path.
    :param keep_nulls: write empty optional fields as null.
    """

    dialect: Dialect
    request: type[BodyT]
    response: type[BaseModel]
    to_score_request: Callable[[BodyT], ScoreRequest]
    to_response: Callable[[BodyT, ScoreResult], BaseModel]
    markers: tuple[str, ...] = ()
    keep_nulls: bool = False


class Truncation(BaseModel):
    """What the model did not read to its end."""

    truncated_documents: int = Field(description="Documents that were truncated.")
    query_truncated: bool = Field(description="Whether a query was truncated.")


class Text(BaseModel):
    """A document with its text."""

    text: str


def _text_of(document: Any) -> Any:
    return document.get("text") if isinstance(document, Mapping) else document


DOCUMENT_SCHEMA: dict[str, JsonValue] = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    ]
}
DocumentText = Annotated[str, BeforeValidator(_text_of), WithJsonSchema(DOCUMENT_SCHEMA)]
# the first wrong item is reported; an error for each would take far more memory than the body
Items = Annotated[list[ItemT], FailFast(), Field(min_length=1)]
Documents = Annotated[
    Items[DocumentText], Field(description='Strings, or objects with a "text" field.')
]


def _json_int(number: Any) -> Any:
    # JSON has one number type: 5.0 is the integer 5
    return int(number) if isinstance(number, float) and number.is_integer() else number


JsonInt = BeforeValidator(_json_int)
AtLeastOne = Annotated[int, Field(ge=1), JsonInt]
TopN = Annotated[AtLeastOne | None, Field(description="How many results to return; default: all.")]
# vLLM's clients write 0 for all, on paths that they share with other services' clients
TopNOrAll = Annotated[
    Annotated[int, Field(ge=0), JsonInt] | None,
    Field(description="How many results to return; default, and 0: all."),
]

_WORDS: dict[Any, bool] = {"true": True, "True": True, "false": False, "False": False}


def _flag(given: Any) -> Any:
    return _WORDS.get(given, given) if isinstance(given, str) else given


# RAGFlow writes "true", which Xinference, Infinity and vLLM read as true; null means the default
Flag = Annotated[
    bool | None,
    BeforeValidator(_flag),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": [*_WORDS, None]}]}),
]
Highlight = Annotated[
    bool,
    Field(
        description="Score each sentence of the documents that are returned: this server's own "
        "field, answered by highlights."
    ),
]
ModelName = Annotated[
    str | None,
    Field(description="One of the server's models; default: its first."),
]

Instruction = Annotated[
    str | None,
    Field(min_length=1, description="What a decoder model is asked to judge; by default its own."),
]

EXAMPLE_QUERY = "What is deep learning?"
EXAMPLE_DOCUMENTS: list[JsonValue] = [
    "Deep learning is a subset of machine learning that uses neural networks with many layers",
    "The weather is nice today",
    "Deep learning enables computers to learn from large amounts of data",
    "I like pizza",
]
EXAMPLE: dict[str, JsonValue] = {"query": EXAMPLE_QUERY, "documents": EXAMPLE_DOCUMENTS}
