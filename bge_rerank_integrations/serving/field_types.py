"""The values of each field of a request, by what it means: types, defaults, examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, FailFast, Field, JsonValue, WithJsonSchema

from ..wire import Role

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
_Texts = Annotated[list[str], Field(min_length=1)]
_NEEDED = (
    *(Role.QUERY, Role.QUERY_OBJECT, Role.QUERIES),
    *(Role.DOCUMENTS, Role.TEXTS, Role.PASSAGES, Role.ONE_OR_MORE),
)
FIELD_TYPES: Mapping[Role, Any] = {
    Role.MODEL: str | None,
    Role.QUERY: str,
    Role.QUERY_OBJECT: _Object,
    Role.QUERIES: _OneOrMore,
    Role.DOCUMENTS: _Items[_Either],
    Role.TEXTS: _Items[str],
    Role.PASSAGES: _Items[_Object],
    Role.ONE_OR_MORE: _OneOrMore,
    Role.TOP_N: _integer(1),
    Role.TOP_N_OR_ALL: _integer(0),
    Role.RETURN_TEXTS: _Flag,
    Role.RETURN_TEXTS_ALWAYS: _Flag,
    Role.RETURN_TOKENS: _Flag,
    Role.RAW_SCORES: _Flag,
    Role.ACTIVATION: _Flag,
    Role.INSTRUCTION: Annotated[str, Field(min_length=1)] | None,
    Role.HIGHLIGHT: _Flag,
    Role.RANK_FIELDS: _Texts | None,
    Role.MAX_DOCUMENT_TOKENS: _integer(1),
    Role.MAX_DOCUMENT_TOKENS_OR_ALL: _integer(-1),
    Role.MAX_QUERY_TOKENS: _integer(0),
    Role.MAX_CHUNKS: _integer(1),
    Role.OVERLAP: _integer(0),
    Role.TRUNCATE: _Flag,
    Role.TRUNCATE_END: Literal["NONE", "END"] | None,
    Role.SIDE: Literal["left", "Left", "right", "Right"] | None,
    Role.IGNORED: str | None,
}


def default_of(role: Role) -> Any:
    """The default of a field: ``...`` for none, else None."""
    return ... if role in _NEEDED else None


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
