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


_STRING: dict[str, Any] = {"type": "string"}
_OBJECT = {"type": "object", "properties": {"text": _STRING}, "required": ["text"]}
_EITHER: dict[str, Any] = {"anyOf": [_STRING, _OBJECT]}
_EITHERS: dict[str, Any] = {"type": "array", "items": _EITHER, "minItems": 1}
_Either = Annotated[str, BeforeValidator(_text_of), WithJsonSchema(_EITHER)]
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
# a request has one of these, and one of those
QUERIES = (Role.QUERY, Role.QUERIES)
DOCUMENTS = (Role.DOCUMENTS, Role.TEXTS, Role.ONE_OR_MORE)
FIELD_TYPES: Mapping[Role, Any] = {
    Role.MODEL: str,
    Role.QUERY: str,
    Role.QUERIES: _OneOrMore,
    Role.DOCUMENTS: _Items[_Either],
    Role.TEXTS: _Items[str],
    Role.ONE_OR_MORE: _OneOrMore,
    Role.TOP_N: _integer(1),
    Role.INSTRUCTION: Annotated[str, Field(min_length=1)],
    Role.RANK_FIELDS: Annotated[list[str], Field(min_length=1)],
    Role.MAX_DOCUMENT_TOKENS: _integer(1),
    Role.MAX_DOCUMENT_TOKENS_OR_ALL: _integer(-1),
    Role.MAX_CHUNKS: _integer(1),
    Role.TRUNCATE_END: Literal["NONE", "END"],
    Role.SIDE: Literal["left", "Left", "right", "Right"],
    Role.IGNORED: str,
    **dict.fromkeys((Role.TOP_N_OR_ALL, Role.MAX_QUERY_TOKENS, Role.OVERLAP), _integer(0)),
    **dict.fromkeys((Role.RETURN_TEXTS, Role.RETURN_TEXTS_ALWAYS, Role.RETURN_TOKENS), _Flag),
    **dict.fromkeys((Role.RAW_SCORES, Role.ACTIVATION, Role.HIGHLIGHT, Role.TRUNCATE), _Flag),
}


EXAMPLE_QUERY = "What is deep learning?"
EXAMPLE_DOCUMENTS = [
    "Deep learning is a subset of machine learning that uses neural networks with many layers",
    "The weather is nice today",
    "Deep learning enables computers to learn from large amounts of data",
    "I like pizza",
]
EXAMPLES: Mapping[Any, JsonValue] = {
    Role.QUERY: EXAMPLE_QUERY,
    Role.QUERIES: EXAMPLE_QUERY,
    Role.DOCUMENTS: [*EXAMPLE_DOCUMENTS],
    Role.TEXTS: [*EXAMPLE_DOCUMENTS],
    Role.ONE_OR_MORE: [*EXAMPLE_DOCUMENTS],
    Role.IGNORED: "",
    Role.TOP_N: 2,
    Role.TOP_N_OR_ALL: 2,
}
