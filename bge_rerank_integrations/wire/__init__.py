"""The wire formats of other services, as one table that is read both ways.

What a row of :mod:`.rows` is made of. The server answers by the rows (``serving/bodies.py``,
``serving/answers.py``), ``RemoteReranker`` asks by them (``remote/dialects.py``), and a table of
``docs/clients.md`` and the OpenAPI document are made from them. A row says with which fields a
service is asked, what they mean, and which body it answers; code says only what no row can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias


class Role(Enum):
    """What a field of a request means, in the words of the OpenAPI document.

    :ivar neutral: values that ask for what is done anyway.
    """

    MODEL = "One of the server's models; default: its first."
    QUERY = "The query."
    QUERIES = "One text, or as many as text_2 has; other lengths are refused."
    DOCUMENTS = 'Strings, or objects with a "text" field.'
    TEXTS = "Strings."
    ONE_OR_MORE = "One text, or several."
    TOP_N = "How many results to return; default: all.", 0
    TOP_N_OR_ALL = "How many results to return; default, and 0: all.", 0
    RETURN_TEXTS = "Repeat the texts in the result.", False
    RETURN_TEXTS_ALWAYS = "Ignored: the texts are repeated always.", False
    RETURN_TOKENS = "Tell each document's tokens, and whether it was truncated.", False
    RAW_SCORES = "Logits instead of scores from 0 to 1.", False
    ACTIVATION = "False: logits instead of scores from 0 to 1.", True
    INSTRUCTION = (
        "What a decoder model is asked to judge; by default its own. Models that read query and "
        "document alone refuse it."
    )
    HIGHLIGHT = (
        "Score each sentence of the documents that are returned: this server's own field, answered "
        "by highlights.",
        False,
    )
    RANK_FIELDS = "Fields of each object in documents whose texts are read, in this order."
    MAX_DOCUMENT_TOKENS = "Truncate each document to this number of tokens."
    MAX_DOCUMENT_TOKENS_OR_ALL = (
        "Truncate each document to this number of tokens; -1: as many as fit.",
        -1,
    )
    MAX_QUERY_TOKENS = "Truncate the query to this number of tokens; 0: as many as fit.", 0
    MAX_CHUNKS = (
        "Above 1: read a long document in windows, of which the best counts; there is no other "
        "bound of their number than that of the document's characters.",
        1,
    )
    OVERLAP = "Ignored: windows overlap as the server has it.", 0
    TRUNCATE = "False: refuse a text that is too long, instead of truncating it.", True, "END"
    TRUNCATE_END = "NONE: refuse a text that is too long, instead of truncating it.", True, "END"
    SIDE = "The side of a long text that is not read.", "right", "Right"
    IGNORED = "Ignored."

    def __init__(self, about: str, *neutral: Any) -> None:
        self.about = about
        self.neutral = (None, *neutral)


class Slot(Enum):
    """What stands at a place of an answer; a place whose value is unknown is left out."""

    ID = "id"
    MODEL = "model"
    CREATED = "created", "integer"
    QUERY = "query"
    INDEX = "index", "integer"
    SCORE = "score", "number"
    TEXT = "text", ["string", "null"]
    PAIR_TOKENS = "pair_tokens", "integer", "Tokens of query and document."
    TRUNCATED = "truncated", "boolean"
    HIGHLIGHTS = "highlights", "array"
    COUNT = "count", "integer"
    RETURNS_TEXTS = "returns_texts", "boolean"
    TOKENS = "tokens", "integer", "Tokens that the model read."
    TRUNCATED_DOCUMENTS = "truncated_documents", "integer", "Documents that were truncated."
    QUERY_TRUNCATED = "query_truncated", "boolean", "Whether a query was truncated."
    SEARCHES = "searches", "integer", "Billed units, counted as Cohere does."
    STATUS = "status", "integer"
    MESSAGE = "message"
    KIND = "kind"
    FIELD = "field", ["string", "null"]
    TEI_ERROR_TYPE = "tei_error_type"

    def __init__(self, _: str, json_type: Any = "string", about: str = "") -> None:
        self.json_type = json_type
        self.about = about


# a JSON value in which a Slot may stand for a value; a list of one item is repeated for each result
Template: TypeAlias = Any
# name → role: "input.query" is in an object, "passages[].text" in each object of a list. Several
# names of one role mean the same.
Fields: TypeAlias = Mapping[str, Role]


def put(body: dict[str, Any], name: str, value: Any) -> None:
    """Put a value where a name leads, or the values of a list into the objects of one."""
    first, dot, rest = name.partition(".")
    if not dot:
        body[name] = value
    elif first.endswith("[]"):
        items = body.setdefault(first.removesuffix("[]"), [{} for _ in value])
        for item, each in zip(items, value, strict=False):
            put(item, rest, each)
    else:
        put(body.setdefault(first, {}), rest, value)


# compared by identity: what is made from a row is cached by it
@dataclass(frozen=True, eq=False)
class Wire:
    """The bodies of one service.

    :param name: the service, in lower case.
    :param fields: of its requests.
    :param answer: body of status 200.
    :param error: body of every other status.
    :param markers: fields that tell it from other services on the same path.
    :param statuses: status by kind of error, where it differs from ``ErrorKind.status``.
    :param in_input_order: results are in the order of the documents, not ranked.
    :param answers_logits: scores are always logits.
    :param repeats_texts: results repeat the texts, unless a request says not to.
    :param keep_nulls: unknown values are null instead of left out.
    """

    name: str
    fields: Fields
    answer: Template
    error: Template
    markers: tuple[str, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    in_input_order: bool = False
    answers_logits: bool = False
    repeats_texts: bool = False
    keep_nulls: bool = False
