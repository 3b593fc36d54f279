"""Request bodies: checked, read and described by the rows of the wire formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from pydantic import JsonValue, TypeAdapter, ValidationError

from ..setting_types import CallOverrides
from ..wire import Fields, Role, Wire
from ..wire.rows import NEUTRAL
from .api_errors import ApiError, ErrorKind, RefusedError, from_validation_error
from .field_types import DOCUMENTS, EXAMPLES, FIELD_TYPES, NEEDED, QUERIES

Schema: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What an API request asks the engine, and of its answer.

    :param query: one for all documents, or one for each.
    :param options: of the engine's call; what it leaves out is as the server's engine has it.
    :param model: the model that the body names.
    :param top_n: how many of the best documents are returned; None means all.
    :param returns_texts: whether the answer repeats the texts.
    :param returns_tokens: whether the answer tells each document's tokens.
    :param highlights: whether the sentences of the returned documents are scored, too.
    """

    query: str | Sequence[str]
    documents: Sequence[str]
    options: CallOverrides = field(default_factory=lambda: CallOverrides(normalize=True))
    model: str | None = None
    top_n: int | None = None
    returns_texts: bool = False
    returns_tokens: bool = False
    highlights: bool = False


def read(wire: Wire, body: Any) -> ScoreRequest:
    """Read a request body.

    :raises RefusedError: if it is not as the row says, or has a field that changes the answer of
        another service.
    """
    if not isinstance(body, Mapping):
        raise _invalid("send a JSON object")
    _refuse_fields_of_others(wire.fields, body)
    values = _values(wire.fields, body)
    pairs = values.get(Role.PAIRS)
    if pairs is None:
        query = next(values[role] for role in QUERIES if role in values)
        documents = next(values[role] for role in DOCUMENTS if role in values)
    else:
        query, documents = (list(texts) for texts in zip(*pairs, strict=True))
    if isinstance(query, list):
        if len(query) not in (1, len(documents)):
            raise _invalid(
                "text_1 must be one text, or as many as text_2: "
                f"got {len(query)} and {len(documents)}"
            )
        query = query[0] if len(query) == 1 else query
    return ScoreRequest(
        query,
        documents,
        _options(wire, values),
        values.get(Role.MODEL),
        # 0 means all
        values.get(Role.TOP_N) or values.get(Role.TOP_N_OR_ALL) or None,
        values.get(Role.RETURN_TEXTS, wire.repeats_texts),
        bool(values.get(Role.RETURN_TOKENS)),
        bool(values.get(Role.HIGHLIGHT)),
    )


def _options(wire: Wire, values: Mapping[Role, Any]) -> CallOverrides:
    is_raw = values.get(Role.RAW_SCORES) or values.get(Role.ACTIVATION) is False
    options = CallOverrides(normalize=not (wire.answers_logits or is_raw))
    limits = (values.get(Role.MAX_DOCUMENT_TOKENS), values.get(Role.MAX_DOCUMENT_TOKENS_OR_ALL))
    # -1 means as many as the model reads, which is the default
    asked = [limit for limit in limits if limit is not None and limit > 0]
    if asked:
        options["max_document_tokens"] = min(asked)
    if values.get(Role.MAX_QUERY_TOKENS):
        options["query_max_length"] = values[Role.MAX_QUERY_TOKENS]
    if values.get(Role.INSTRUCTION) is not None:
        options["instruction"] = values[Role.INSTRUCTION]
    if values.get(Role.TRUNCATE) is False or values.get(Role.TRUNCATE_END) == "NONE":
        options["long_documents"] = "refuse"
    elif (values.get(Role.MAX_CHUNKS) or 1) > 1:
        options["long_documents"] = "window"
    elif (values.get(Role.SIDE) or "").lower() == "left":
        options["long_documents"] = "truncate_left"
    return options


def _invalid(message: str) -> RefusedError:
    return RefusedError(ApiError(ErrorKind.INVALID, f"the body: {message}"))


def _refuse_fields_of_others(fields: Fields, body: Mapping[str, Any], inside: str = "") -> None:
    for name, value in body.items():
        path = f"{inside}{name}"
        if any(own.startswith(f"{path}.") for own in fields):
            if isinstance(value, Mapping):
                _refuse_fields_of_others(fields, value, f"{path}.")
        # 0 and False are equal, but not the same
        elif path not in fields and not any(
            type(value) is type(each) and value == each for each in NEUTRAL.get(name, (value,))
        ):
            raise _invalid(f"{path!r} is a field of another service, not of this one's")


def _values(fields: Fields, body: Mapping[str, Any]) -> dict[Role, Any]:
    """The values of a body, by what they mean; null means that there is none."""
    if Role.RANK_FIELDS in fields.values():
        body = _with_rank_fields(body)
    values: dict[Role, Any] = {}
    for name, role in fields.items():
        given = _at(body, name)
        if given is not None:
            values.setdefault(role, _checked(name, role, given))
    for name, role in fields.items():
        if role in NEEDED and role not in values:
            raise RefusedError(ApiError(ErrorKind.INVALID, f"{name}: Field required", name))
    return values


def _at(body: Any, name: str) -> Any:
    """What stands at a name of the row.

    :raises RefusedError: if there is no object where the name leads into one.
    """
    path = name.split(".")
    for depth, part in enumerate(path):
        if body is None:
            return None
        if not isinstance(body, Mapping):
            where = ".".join(path[:depth])
            raise RefusedError(ApiError(ErrorKind.INVALID, f"{where}: send an object", where))
        body = body.get(part)
    return body


def _checked(name: str, role: Role, given: Any) -> Any:
    try:
        return _adapter(role).validate_python(given, strict=True)
    except ValidationError as error:
        raise RefusedError(from_validation_error(error, name)) from None


@cache
def _adapter(role: Role) -> TypeAdapter[Any]:
    return TypeAdapter(FIELD_TYPES[role])


def _with_rank_fields(body: Any) -> Any:
    """Replace objects by what Cohere v1 reads of them: the named fields, by line breaks."""
    match body:
        case {"rank_fields": [*names], "documents": [*documents]}:
            texts = [_join(names, document, i) for i, document in enumerate(documents)]
            return {**body, "documents": texts}
    return body


def _join(names: Sequence[Any], document: Any, index: int) -> Any:
    if not isinstance(document, Mapping):
        return document
    values = [document[name] for name in names if isinstance(name, str) and name in document]
    if not values:
        raise _invalid(f"documents[{index}] has none of the rank_fields")
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    )


@cache
def request_schema(wire: Wire) -> Schema:
    """The OpenAPI schema of a service's request bodies, with an example."""
    # of several names of a role the first
    first = {role: name for name, role in reversed([*wire.fields.items()])}
    schema = _object_schema(wire.fields, {first[role] for role in NEEDED if role in first})
    others = {name: {"enum": list(neutral)} for name, neutral in NEUTRAL.items()}
    title = "".join(part.title() for part in wire.name.split("-"))
    example = _example({first[role]: role for role in EXAMPLES if role in first})
    schema["properties"] = {**others, **schema["properties"]}
    return {"title": f"{title}Request", **schema, "examples": [example]}


def _object_schema(fields: Fields, needed: Set[str]) -> Schema:
    properties: dict[str, Schema] = {}
    for name, inner in _by_object(fields).items():
        if isinstance(inner, Role):
            properties[name] = {**_adapter(inner).json_schema(), "description": inner.about}
        else:
            below = {own.partition(".")[2] for own in needed if own.startswith(f"{name}.")}
            properties[name] = _object_schema(inner, below)
    required = sorted({name.partition(".")[0] for name in needed})
    return {"type": "object", "properties": properties, "required": required}


def _example(fields: Fields) -> JsonValue:
    return {
        name: EXAMPLES[inner] if isinstance(inner, Role) else _example(inner)
        for name, inner in _by_object(fields).items()
    }


def _by_object(fields: Fields) -> dict[str, Role | Fields]:
    """Fields as a body holds them: those whose names have dots, by their objects."""
    nested: dict[str, Any] = {}
    for name, role in fields.items():
        first, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(first, {})[rest] = role
        else:
            nested[first] = role
    return nested
