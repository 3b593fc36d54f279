"""What all request bodies share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    JsonValue,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

# Fields that change the answer in some dialect, and the values that ask for what is done anyway:
# none but null for a field that tells a service from the others on its path. Clients send them to
# servers of other services; where a dialect has no such field, ignoring it would answer another
# question.
_ANSWER_FIELDS: Mapping[str, tuple[JsonValue, ...]] = {
    "documents": (None,),
    "highlight": (False,),
    "input": (None,),
    "instruct": (None,),
    "instruction": (None,),
    "max_tokens_per_doc": (None,),
    "parameters": (None,),
    "passages": (None,),
    "property": (None,),
    "rank_fields": (None,),
    "raw_scores": (None, False),
    "return_documents": (None, False),
    "return_input": (None, False),
    "return_text": (None, False),
    "return_tokens": (False,),
    "texts": (None,),
    "top_k": (None,),
    "top_n": (None, 0),
    "truncate": (None, True, "END"),
    "truncate_prompt_tokens": (None,),
    "truncation": (None,),
    "truncation_direction": (None, "right", "Right"),
    "use_activation": (None, True),
}


class StrictModel(BaseModel):
    """Base of what a request holds: strict types, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ApiRequest(StrictModel):
    """Base of request bodies.

    Unknown fields are ignored, but for those that change the answer in another dialect: they are
    refused, unless their value asks for what this dialect does.
    """

    @model_validator(mode="before")
    @classmethod
    def _refuse_fields_of_other_dialects(cls, body: Any) -> Any:
        if isinstance(body, Mapping):
            for name, defaults in cls._fields_of_other_dialects().items():
                if name in body and not _is_one_of(body[name], defaults):
                    raise ValueError(f"{name!r} is a field of another service, not of this one's")
        return body

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, defaults in cls._fields_of_other_dialects().items():
            schema["properties"][name] = {"enum": list(defaults)}
        return schema

    @classmethod
    def _fields_of_other_dialects(cls) -> dict[str, tuple[JsonValue, ...]]:
        own: set[str] = set()
        for name, field in cls.model_fields.items():
            alias = field.validation_alias
            own.update(map(str, alias.choices) if isinstance(alias, AliasChoices) else [name])
        return {name: _ANSWER_FIELDS[name] for name in _ANSWER_FIELDS if name not in own}


def _is_one_of(given: object, values: tuple[JsonValue, ...]) -> bool:
    # 0 and False are equal, but not the same
    return any(type(given) is type(value) and given == value for value in values)
