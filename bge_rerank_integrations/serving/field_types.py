"""The values of each field of a request, by what it means: types, descriptions, examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, FailFast, Field, JsonValue, WithJsonSchema

from bge_rerank_integrations.wire import Role

ItemT = TypeVar("ItemT")


def _text_of(document: Any) -> Any:
    return document.get("text") if isinstance(document, Mapping) else document


def _text_in_object(given: Any) -> Any:
    if not isinstance(given, Mapping):
        raise ValueError('must be an object with a "text"')
    return given.get("text")


def _listed(texts: Any) -> Any:
    return [texts] if isinstance(texts, str) else texts


def _int(given: Any) -> Any:
    # JSON has one number type: 5.0 is the integer 5; forms and templates write "5"
    if isinstance(given, float) and given.is_integer():
        return int(given)
    is_text = isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,9}", given) is not None
    return int(given) if is_text else given


_WORDS: dict[Any, bool] = {"true": True, "True": True, "false": False, "False": False}


def _flag(given: Any) -> Any:
    return _WORDS.get(given, given) if isinstance(given, str) else given


def _integer(minimum: int) -> Any:
    schemas: list[dict[str, Any]] = [
        {"type": "integer", "minimum": minimum},
        {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
        {"type": "null"},
    ]
    number = Annotated[int | None, Field(ge=minimum)]
    return Annotated[number, BeforeValidator(_int), WithJsonSchema({"anyOf": schemas})]


_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
}
_STRING: dict[str, Any] = {"type": "string"}
_EITHER: dict[str, Any] = {"anyOf": [_STRING, _OBJECT]}
_EITHERS: dict[str, Any] = {"type": "array", "items": _EITHER, "minItems": 1}
_Either = Annotated[str, BeforeValidator(_text_of), WithJsonSchema(_EITHER)]
_Object = Annotated[str, BeforeValidator(_text_in_object), WithJsonSchema(_OBJECT)]
# the first wrong item is reported; an error for each would take far more memory than the body
_Items = Annotated[list[ItemT], FailFast(), Field(min_length=1)]
_OneOrMore = Annotated[
    _Items[_Either], BeforeValidator(_listed), WithJsonSchema({"anyOf": [_STRING, _EITHERS]})
]
# RAGFlow writes "true", which Xinference, Infinity and vLLM read as true; null means the default
_Flag = Annotated[
    bool | None,
    BeforeValidator(_flag),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": [*_WORDS, None]}]}),
]
_Side = Annotated[
    Literal["left", "Left", "right", "Right"] | None,
    Field(description="The side of a long text that is not read."),
]


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of a field's values, its default (... for none), and its text in OpenAPI."""

    type: Any
    default: Any = None
    description: str | None = None


_PER_DOCUMENT = "Truncate each document to this number of tokens"
_REPEAT = "Repeat the texts in the result"
FIELD_TYPES: Mapping[Role, FieldType] = {
    Role.MODEL: FieldType(str | None, None, "One of the server's models; default: its first."),
    Role.QUERY: FieldType(str, ...),
    Role.QUERY_OBJECT: FieldType(_Object, ...),
    Role.QUERIES: FieldType(
        _OneOrMore, ..., "One text, or as many as text_2 has; other lengths are refused."
    ),
    Role.DOCUMENTS: FieldType(_Items[_Either], ..., 'Strings, or objects with a "text" field.'),
    Role.TEXTS: FieldType(_Items[str], ...),
    Role.PASSAGES: FieldType(_Items[_Object], ...),
    Role.ONE_OR_MORE: FieldType(_OneOrMore, ...),
    Role.TOP_N: FieldType(_integer(1), None, "How many results to return; default: all."),
    Role.TOP_N_OR_ALL: FieldType(
        _integer(0), None, "How many results to return; default, and 0: all."
    ),
    Role.RETURN_TEXTS: FieldType(_Flag, None, f"{_REPEAT}."),
    Role.RETURN_TEXTS_ALWAYS: FieldType(_Flag, None, "Ignored: the texts are repeated always."),
    Role.RETURN_TOKENS: FieldType(
        _Flag, None, "Tell each document's tokens, and whether it was truncated."
    ),
    Role.RAW_SCORES: FieldType(_Flag, None, "Logits instead of scores from 0 to 1."),
    Role.ACTIVATION: FieldType(_Flag, None, "False: logits instead of scores from 0 to 1."),
    Role.INSTRUCTION: FieldType(
        Annotated[str, Field(min_length=1)] | None,
        None,
        "What a decoder model is asked to judge; by default its own.",
    ),
    Role.HIGHLIGHT: FieldType(
        _Flag,
        None,
        "Score each sentence of the documents that are returned: this server's own field, "
        "answered by highlights.",
    ),
    Role.RANK_FIELDS: FieldType(
        Annotated[list[str], Field(min_length=1)] | None,
        None,
        "Fields of each object in documents whose texts are read, in this order.",
    ),
    Role.MAX_DOCUMENT_TOKENS: FieldType(_integer(1), None, f"{_PER_DOCUMENT}."),
    Role.MAX_DOCUMENT_TOKENS_OR_ALL: FieldType(
        _integer(-1), None, f"{_PER_DOCUMENT}; -1: as many as fit."
    ),
    Role.MAX_QUERY_TOKENS: FieldType(
        _integer(0), None, "Truncate the query to this number of tokens; 0: as many as fit."
    ),
    Role.MAX_CHUNKS: FieldType(
        _integer(1),
        None,
        "Above 1: read a long document in windows, of which the best counts; there is no other "
        "bound of their number than that of the document's characters.",
    ),
    Role.OVERLAP: FieldType(_integer(0), None, "Ignored: windows overlap as the server has it."),
    Role.TRUNCATE: FieldType(
        _Flag, None, "False: refuse a text that is too long, instead of truncating it."
    ),
    Role.TRUNCATE_END: FieldType(
        Literal["NONE", "END"] | None,
        None,
        "NONE: refuse a text that is too long, instead of truncating it.",
    ),
    Role.SIDE: FieldType(_Side, None),
    Role.IGNORED: FieldType(str | None, None, "Ignored."),
}

EXAMPLE_QUERY = "What is deep learning?"
EXAMPLE_DOCUMENTS = [
    "Deep learning is a subset of machine learning that uses neural networks with many layers",
    "The weather is nice today",
    "Deep learning enables computers to learn from large amounts of data",
    "I like pizza",
]
_OBJECTS: list[JsonValue] = [{"text": text} for text in EXAMPLE_DOCUMENTS]
EXAMPLES: Mapping[Any, JsonValue] = {
    Role.QUERY: EXAMPLE_QUERY,
    Role.QUERY_OBJECT: {"text": EXAMPLE_QUERY},
    Role.QUERIES: EXAMPLE_QUERY,
    Role.DOCUMENTS: [*EXAMPLE_DOCUMENTS],
    Role.TEXTS: [*EXAMPLE_DOCUMENTS],
    Role.PASSAGES: _OBJECTS,
    Role.ONE_OR_MORE: [*EXAMPLE_DOCUMENTS],
    Role.TOP_N: 2,
    Role.TOP_N_OR_ALL: 2,
}
