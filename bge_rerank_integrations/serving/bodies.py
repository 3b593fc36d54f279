"""Request bodies: checked, read and described by the rows of the wire formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from ..setting_types import CallOverrides
from ..wire import Fields, Role, Wire, put
from ..wire.paths import NEUTRAL
from .api_errors import ApiError, ErrorKind, RefusedError, from_validation_error
from .field_types import DOCUMENTS, EXAMPLES, FIELD_TYPES, QUERIES

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
    query = next(values[role] for role in QUERIES if role in values)
    documents = next(values[role] for role in DOCUMENTS if role in values)
    if isinstance(query, list):
        if len(query) not in (1, len(documents)):
            raise _invalid(
                "queries must be one, or as many as documents: "
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
    own = {
        name.removeprefix(inside).partition(".")[0] for name in fields if name.startswith(inside)
    }
    for name, value in body.items():
        if name in own and isinstance(value, Mapping):
            _refuse_fields_of_others(fields, value, f"{inside}{name}.")
        # 0 and False are equal, but not the same
        elif not own & {name, f"{name}[]"} and not any(
            type(value) is type(each) and value == each for each in NEUTRAL.get(name, (value,))
        ):
            raise _invalid(f"'{inside}{name}' is a field of another service, not of this one's")


def _values(fields: Fields, body: Mapping[str, Any]) -> dict[Role, Any]:
    """The values of a body, by what they mean; null means that there is none."""
    if Role.RANK_FIELDS in fields.values():
        body = _with_rank_fields(body)
    values: dict[Role, Any] = {}
    for name, role in fields.items():
        given = _at(body, name)
        try:
            if given is not None:
                values.setdefault(role, _adapter(role).validate_python(given, strict=True))
        except ValidationError as error:
            raise RefusedError(from_validation_error(error, name)) from None
    for name, role in fields.items():
        if role in (*QUERIES, *DOCUMENTS) and role not in values:
            raise _wrong(name, "Field required")
    return values


def _at(body: Any, name: str, where: str = "") -> Any:
    """What stands where a name leads; None if nothing does."""
    first, dot, rest = name.partition(".")
    if not isinstance(body, Mapping):
        raise _wrong(where, "send an object")
    key = first.removesuffix("[]")
    place, given = f"{where}.{key}".lstrip("."), body.get(key)
    if not dot or given is None:
        return given
    if first == key:
        return _at(given, rest, place)
    if not isinstance(given, list):
        raise _wrong(place, "send a list")
    return [_at(each, rest, f"{place}[{index}]") for index, each in enumerate(given)]


def _wrong(field: str, message: str) -> RefusedError:
    return RefusedError(ApiError(ErrorKind.INVALID, f"{field}: {message}", field))


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
    title = "".join(part.title() for part in wire.name.split("-"))
    schema = {"title": f"{title}Request", **_object()}
    schema["properties"] = {name: {"enum": list(neutral)} for name, neutral in NEUTRAL.items()}
    example: Schema = {}
    # of several names of a role the first
    first = {role: name for name, role in reversed([*wire.fields.items()])}
    for name, role in wire.fields.items():
        is_needed = role in (*QUERIES, *DOCUMENTS) and first[role] == name
        _describe(schema, name, role, is_needed=is_needed)
        if role in EXAMPLES and first[role] == name:
            value = EXAMPLES[role]
            put(example, name, [value] if "[]" in name and isinstance(value, str) else value)
    return {**schema, "examples": [example]}


def _object() -> Schema:
    return {"type": "object", "properties": {}, "required": []}


def _describe(
    schema: Schema, name: str, role: Role, *, is_needed: bool, is_item: bool = False
) -> None:
    """Add a field to the schema of an object."""
    first, dot, rest = name.partition(".")
    key = first.removesuffix("[]")
    if is_needed and key not in schema["required"]:
        schema["required"].append(key)
    if not dot:
        type_ = {"type": "string"} if is_item else _adapter(role).json_schema()
        if not (is_needed or is_item):
            # null means that there is none
            type_ = {"anyOf": [type_, {"type": "null"}]}
        schema["properties"][key] = {**type_, "description": role.about}
        return
    described = schema["properties"]
    if first == key:
        if "type" not in described.get(key, {}):
            described[key] = {**_object(), "type": ["object", "null"]}
        inner = described[key]
        if is_needed:
            inner["type"] = "object"
    else:
        if "items" not in described.get(key, {}):
            described[key] = {"type": "array", "items": _object(), "minItems": 1}
        inner = described[key]["items"]
    _describe(inner, rest, role, is_needed=is_needed, is_item=is_item or first != key)
