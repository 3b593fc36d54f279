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
    """What a field of a request means, and which values it takes."""

    MODEL = "a model's name"
    QUERY = "one query"
    QUERY_OBJECT = 'one query as {"text": …}'
    QUERIES = "one query, or a list in step with the documents"
    DOCUMENTS = 'strings, or objects with a "text"'
    TEXTS = "strings"
    PASSAGES = 'objects {"text": …}'
    ONE_OR_MORE = "one text, or a list"
    TOP_N = "how many results; at least 1"
    TOP_N_OR_ALL = "how many results; 0 means all"
    RETURN_TEXTS = "whether results repeat the texts"
    RETURN_TEXTS_ALWAYS = "ignored: results always repeat the texts"
    RETURN_TOKENS = "whether results tell tokens and truncation"
    RAW_SCORES = "true: logits instead of 0 to 1"
    ACTIVATION = "false: logits instead of 0 to 1"
    INSTRUCTION = "what a decoder is asked to judge"
    HIGHLIGHT = "whether results come with scored sentences"
    RANK_FIELDS = "fields of each object that are read"
    MAX_DOCUMENT_TOKENS = "truncate each document"
    MAX_DOCUMENT_TOKENS_OR_ALL = "truncate each document; -1: as many as fit"
    MAX_QUERY_TOKENS = "truncate the query"
    MAX_CHUNKS = "above 1: read a long document in parts, of which the best counts"
    OVERLAP = "of these parts; this server has its own"
    TRUNCATE = "false: refuse a text that is too long"
    TRUNCATE_END = '"NONE": refuse a text that is too long; "END": truncate it'
    SIDE = '"left" or "right": the side of a long text that is not read'
    IGNORED = "changes nothing"


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
    :param statuses: status by kind of error, where it differs from ``api_errors.STATUSES``.
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
