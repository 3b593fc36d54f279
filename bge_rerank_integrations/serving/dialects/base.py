"""What a dialect is: request and answer bodies of its own, and error bodies of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from bge_rerank_integrations.ranking import RankedDocument, rank
from bge_rerank_integrations.serving.api_errors import STATUSES, Kind, Problem

BodyT = TypeVar("BodyT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Question:
    """A query and the documents that it is scored against.

    :param max_tokens_per_document: cut each document here first; None reads as much as fits.
    :param refuse_long: refuse a document that does not fit, instead of trimming it.
    """

    query: str
    documents: Sequence[str]
    max_tokens_per_document: int | None = None
    refuse_long: bool = False


@dataclass(frozen=True)
class Answer:
    """What the engine says to a request, and what every dialect builds its reply from.

    :param logits: one per document of all questions, in their order.
    :param tokens: tokens that the model read.
    :param model: name of the model.
    :param id: names this answer.
    :param created: seconds since 1970.
    """

    logits: Sequence[float]
    tokens: int
    model: str
    id: str
    created: int

    def ranked(self, top_n: int | None, *, raw: bool = False) -> tuple[RankedDocument, ...]:
        """The documents, best first, with scores from 0 to 1 or raw ones."""
        return rank(self.logits, top_n=top_n, normalize=not raw)


@dataclass(frozen=True)
class Dialect:
    """A service's name and its way to say that something is wrong.

    :param name: the service, in lower case.
    :param error_body: status and problem → body.
    :param error_schema: type of those bodies.
    :param statuses: where the service's status codes differ from :data:`STATUSES`.
    """

    name: str
    error_body: Callable[[int, Problem], BaseModel]
    error_schema: type[BaseModel]
    statuses: Mapping[Kind, int] = field(default_factory=dict)

    def status(self, kind: Kind) -> int:
        """The HTTP status code for a kind of problem."""
        return self.statuses.get(kind, STATUSES[kind])


@dataclass(frozen=True)
class Form(Generic[BodyT]):
    """One kind of request, and the answer to it.

    :param request: type of the request's body.
    :param response: type of the answer's body.
    :param questions: request → what the engine is asked.
    :param reply: request and the engine's answer → answer.
    :param marker: the field that tells this form from others on the same path.
    :param keep_nulls: write optional fields that are empty, as null.
    """

    dialect: Dialect
    request: type[BodyT]
    response: type[BaseModel]
    questions: Callable[[BodyT], Sequence[Question]]
    reply: Callable[[BodyT, Answer], BaseModel]
    marker: str | None = None
    keep_nulls: bool = False


class Request(BaseModel):
    """Base of request bodies: no conversions (``"3"`` is no number); unknown fields are left."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Text(BaseModel):
    """A document with its text."""

    text: str


def _text_of(document: Any) -> Any:
    return document.get("text") if isinstance(document, Mapping) else document


DocumentText = Annotated[
    str,
    BeforeValidator(_text_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                },
            ]
        }
    ),
]
Documents = Annotated[
    list[DocumentText], Field(min_length=1, description='Strings, or objects with a "text".')
]


def _whole(number: Any) -> Any:
    # JSON has one kind of number: 5.0 is the integer 5
    return int(number) if isinstance(number, float) and number.is_integer() else number


Whole = BeforeValidator(_whole)
AtLeastOne = Annotated[int, Field(ge=1), Whole]
TopN = Annotated[AtLeastOne | None, Field(description="How many to return; all by default.")]
ModelName = Annotated[
    str | None,
    Field(description="Not read: a server serves the one model that it was started with."),
]

EXAMPLE_QUERY = "What is deep learning?"
EXAMPLE_DOCUMENTS: list[JsonValue] = [
    "Deep learning is a subset of machine learning that uses neural networks with many layers",
    "The weather is nice today",
    "Deep learning enables computers to learn from large amounts of data",
    "I like pizza",
]
EXAMPLE: dict[str, JsonValue] = {"query": EXAMPLE_QUERY, "documents": EXAMPLE_DOCUMENTS}
