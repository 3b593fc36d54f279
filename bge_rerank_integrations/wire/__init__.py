"""The wire formats of rerank services, as one table that is read both ways.

What a row of :mod:`.rows` is made of. The server answers by the rows (``serving/bodies.py``,
``serving/answers.py``), ``RemoteReranker`` asks by them (``remote/services.py``), and a table of
``docs/clients.md`` and the OpenAPI document are made from them. A row says with which fields a
service is asked, what they mean, and which body it answers; code says only what no row can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias


class Role(Enum):
    """What a field of a request means, in the words of the OpenAPI document."""

    MODEL = "One of the server's models; default: its first."
    QUERY = "The query."
    QUERY_OBJECT = 'The query, as {"text": …}.'
    QUERIES = "One text, or as many as text_2 has; other lengths are refused."
    DOCUMENTS = 'Strings, or objects with a "text" field.'
    TEXTS = "Strings."
    PASSAGES = 'Objects {"text": …}.'
    ONE_OR_MORE = "One text, or several."
    TOP_N = "How many results to return; default: all."
    TOP_N_OR_ALL = "How many results to return; default, and 0: all."
    RETURN_TEXTS = "Repeat the texts in the result."
    RETURN_TEXTS_ALWAYS = "Ignored: the texts are repeated always."
    RETURN_TOKENS = "Tell each document's tokens, and whether it was truncated."
    RAW_SCORES = "Logits instead of scores from 0 to 1."
    ACTIVATION = "False: logits instead of scores from 0 to 1."
    INSTRUCTION = (
        "What a decoder model is asked to judge; by default its own. Models that read query and "
        "document alone refuse it."
    )
    HIGHLIGHT = (
        "Score each sentence of the documents that are returned: this server's own field, answered "
        "by highlights."
    )
    RANK_FIELDS = "Fields of each object in documents whose texts are read, in this order."
    MAX_DOCUMENT_TOKENS = "Truncate each document to this number of tokens."
    MAX_DOCUMENT_TOKENS_OR_ALL = (
        "Truncate each document to this number of tokens; -1: as many as fit."
    )
    MAX_QUERY_TOKENS = "Truncate the query to this number of tokens; 0: as many as fit."
    MAX_CHUNKS = (
        "Above 1: read a long document in windows, of which the best counts; there is no other "
        "bound of their number than that of the document's characters."
    )
    OVERLAP = "Ignored: windows overlap as the server has it."
    TRUNCATE = "False: refuse a text that is too long, instead of truncating it."
    TRUNCATE_END = "NONE: refuse a text that is too long, instead of truncating it."
    SIDE = "The side of a long text that is not read."
    IGNORED = "Ignored."


class Slot(Enum):
    """What stands at a place of an answer; a place whose value is unknown is left out."""

    ID = "id"
    MODEL = "model"
    CREATED = "created"
    QUERY = "query"
    INDEX = "index"
    SCORE = "score"
    TEXT = "text"
    PAIR_TOKENS = "pair_tokens"
    TRUNCATED = "truncated"
    HIGHLIGHTS = "highlights"
    COUNT = "count"
    RETURNS_TEXTS = "returns_texts"
    TOKENS = "tokens"
    TRUNCATED_DOCUMENTS = "truncated_documents"
    QUERY_TRUNCATED = "query_truncated"
    SEARCHES = "searches"
    STATUS = "status"
    MESSAGE = "message"
    KIND = "kind"
    FIELD = "field"
    TEI_ERROR_TYPE = "tei_error_type"


# a JSON value in which a Slot may stand for a value; a list of one item is repeated for each result
Template: TypeAlias = Any
# wire name → role; "a|b" are two names of one field, and a mapping holds the fields of an object
Fields: TypeAlias = Mapping[str, Any]


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
