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


def _text_at(*path: str) -> BeforeValidator:
    """Reads the text in an object, or in objects in it."""

    def read(given: Any) -> Any:
        for name in path:
            if not isinstance(given, Mapping):
                raise ValueError(f"must be an object with {'.'.join(path)}")
            given = given.get(name)
        return given

    return BeforeValidator(read)


def _pair(given: Any) -> Any:
    if not isinstance(given, Mapping):
        raise ValueError('must be an object with "text" and "text_pair"')
    return (given.get("text"), given.get("text_pair"))


def _only(given: Any) -> Any:
    if not isinstance(given, list) or len(given) != 1:
        raise ValueError("must be a list of one query")
    return given[0]


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


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


_STRING: dict[str, Any] = {"type": "string"}
_OBJECT = _object(text=_STRING)
_EITHER: dict[str, Any] = {"anyOf": [_STRING, _OBJECT]}
_EITHERS: dict[str, Any] = {"type": "array", "items": _EITHER, "minItems": 1}
_Either = Annotated[str, BeforeValidator(_text_of), WithJsonSchema(_EITHER)]
_Object = Annotated[str, _text_at("text"), WithJsonSchema(_OBJECT)]
_QueryList = Annotated[
    str,
    _text_at("textQuery", "text"),
    BeforeValidator(_only),
    WithJsonSchema(
        {"type": "array", "items": _object(textQuery=_OBJECT), "minItems": 1, "maxItems": 1}
    ),
]
_Source = Annotated[
    str,
    _text_at("inlineDocumentSource", "textDocument", "text"),
    WithJsonSchema(_object(inlineDocumentSource=_object(textDocument=_OBJECT))),
]
_Pair = Annotated[
    tuple[str, str],
    BeforeValidator(_pair),
    WithJsonSchema(_object(text=_STRING, text_pair=_STRING)),
]
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
QUERIES = (Role.QUERY, Role.QUERY_OBJECT, Role.QUERY_LIST, Role.QUERIES)
DOCUMENTS = (Role.DOCUMENTS, Role.TEXTS, Role.PASSAGES, Role.SOURCES, Role.ONE_OR_MORE)
#: without which a request is none
NEEDED = (*QUERIES, *DOCUMENTS, Role.PAIRS)
FIELD_TYPES: Mapping[Role, Any] = {
    Role.MODEL: str,
    Role.QUERY: str,
    Role.QUERY_OBJECT: _Object,
    Role.QUERY_LIST: _QueryList,
    Role.QUERIES: _OneOrMore,
    Role.DOCUMENTS: _Items[_Either],
    Role.TEXTS: _Items[str],
    Role.PASSAGES: _Items[_Object],
    Role.SOURCES: _Items[_Source],
    Role.PAIRS: _Items[_Pair],
    Role.ONE_OR_MORE: _OneOrMore,
    Role.TOP_N: _integer(1),
    Role.INSTRUCTION: Annotated[str, Field(min_length=1)],
    Role.RANK_FIELDS: _Texts,
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
