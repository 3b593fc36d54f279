"""Request bodies: made from the rows of the wire formats, checked, and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    create_model,
)

from ..setting_types import CallOverrides
from ..wire import Fields, Role, Wire
from .api_errors import ApiError, ErrorKind, RefusedError, from_validation_error
from .field_types import EXAMPLES, FIELD_TYPES, default_of

Schema: TypeAlias = dict[str, Any]

_QUERIES = (Role.QUERY, Role.QUERY_OBJECT, Role.QUERIES)
_DOCUMENTS = (Role.DOCUMENTS, Role.TEXTS, Role.PASSAGES, Role.ONE_OR_MORE)

# Fields that change the answer of some service, and the values that ask for what is done anyway:
# none but null for a field that tells a service from the others on its path. Clients send them to
# servers of other services; where a row has no such field, ignoring it would answer another
# question.
_ANSWER_FIELDS: Mapping[str, tuple[JsonValue, ...]] = {
    "activation": (None, True),
    "contexts": (None,),
    "documents": (None,),
    "highlight": (None, False),
    "input": (None,),
    "instruct": (None,),
    "instruction": (None,),
    "max_chunks_per_doc": (None, 1),
    "max_tokens_per_doc": (None,),
    "max_tokens_per_query": (None, 0),
    "overlap_tokens": (None, 0),
    "parameters": (None,),
    "passages": (None,),
    "property": (None,),
    "rank_fields": (None,),
    "raw_scores": (None, False),
    "return_documents": (None, False),
    "return_input": (None, False),
    "return_text": (None, False),
    "return_tokens": (None, False),
    "rewrite_query": (None, False),
    "texts": (None,),
    "top_k": (None,),
    "top_n": (None, 0),
    "truncate": (None, True, "END"),
    "truncate_prompt_tokens": (None, -1),
    "truncation": (None,),
    "truncation_direction": (None, "right", "Right"),
    "truncation_side": (None, "right"),
    "use_activation": (None, True),
}


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
    _refuse_fields_of_others(wire, body)
    values = _values(wire, body)
    query = next(values[role] for role in _QUERIES if role in values)
    documents = next(values[role] for role in _DOCUMENTS if role in values)
    if isinstance(query, list):
        if len(query) not in (1, len(documents)):
            raise _invalid(
                "text_1 must be one text, or as many as text_2: "
                f"got {len(query)} and {len(documents)}"
            )
        query = query[0] if len(query) == 1 else query
    returns = values.get(Role.RETURN_TEXTS)
    return ScoreRequest(
        query,
        documents,
        _options(wire, values),
        values.get(Role.MODEL),
        # 0 means all
        values.get(Role.TOP_N) or values.get(Role.TOP_N_OR_ALL) or None,
        wire.repeats_texts if returns is None else returns,
        bool(values.get(Role.RETURN_TOKENS)),
        bool(values.get(Role.HIGHLIGHT)),
    )


@cache
def request_schema(wire: Wire) -> Schema:
    """The OpenAPI schema of a service's request bodies, with an example."""
    schema = _model_of(wire).model_json_schema()
    for name, neutral in _fields_of_others(wire).items():
        schema["properties"][name] = {"enum": list(neutral)}
    inner = schema.pop("$defs", {})
    for name, value in schema["properties"].items():
        if "$ref" in value:
            schema["properties"][name] = inner[value["$ref"].rpartition("/")[2]]
    return {**schema, "examples": [_example(wire.fields)]}


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


def _refuse_fields_of_others(wire: Wire, body: Any) -> None:
    if not isinstance(body, Mapping):
        return
    for name, neutral in _fields_of_others(wire).items():
        # 0 and False are equal, but not the same
        if name in body and not any(
            type(body[name]) is type(value) and body[name] == value for value in neutral
        ):
            raise _invalid(f"{name!r} is a field of another service, not of this one's")


@cache
def _fields_of_others(wire: Wire) -> Mapping[str, tuple[JsonValue, ...]]:
    own = {name for names in wire.fields for name in names.split("|")}
    return {name: _ANSWER_FIELDS[name] for name in _ANSWER_FIELDS if name not in own}


def _values(wire: Wire, body: Any) -> dict[Role, Any]:
    """The values of a body, by what they mean."""
    if Role.RANK_FIELDS in wire.fields.values():
        body = _with_rank_fields(body)
    try:
        parsed = _model_of(wire).model_validate(body)
    except ValidationError as error:
        raise RefusedError(from_validation_error(error)) from None
    return dict(_by_role(wire.fields, parsed))


def _by_role(fields: Fields, parsed: BaseModel) -> Iterator[tuple[Role, Any]]:
    for names, role in fields.items():
        value = getattr(parsed, names.partition("|")[0])
        if isinstance(role, Role):
            yield role, value
        else:
            yield from _by_role(role, value)


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


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


@cache
def _model_of(wire: Wire) -> type[BaseModel]:
    return _model(wire.name, wire.fields)


def _model(name: str, fields: Fields) -> type[BaseModel]:
    definitions: dict[str, Any] = {}
    for names, role in fields.items():
        first, *others = names.split("|")
        if isinstance(role, Role):
            alias = AliasChoices(first, *others) if others else None
            about = Field(default_of(role), validation_alias=alias, description=role.value)
            definitions[first] = (FIELD_TYPES[role], about)
        else:
            inner = _model(f"{name}-{first}", role)
            is_needed = any(default_of(each) is ... for each in role.values())
            definitions[first] = (inner, ... if is_needed else Field(default_factory=inner))
    title = "".join(part.title() for part in name.split("-"))
    return create_model(f"{title}Request", __base__=_Strict, **definitions)


def _example(fields: Fields) -> JsonValue:
    return {
        names.partition("|")[0]: EXAMPLES[role] if isinstance(role, Role) else _example(role)
        for names, role in fields.items()
        if not isinstance(role, Role) or role in EXAMPLES
    }
