"""The request and response format of each service, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bge_rerank_integrations.setting_types import API_KEY_VARIABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDialect:
    """The format of one service. Requests ask for all results: a missing one is an error.

    :param path: path below the base URL; ``{model}`` is replaced by the model's name.
    :param key_variable: the environment variable with its API key.
    :param documents: name of the request's field with the documents.
    :param wraps_query: whether the query is sent as ``{"text": …}``.
    :param wraps_documents: whether each document is sent as ``{"text": …}``.
    :param sends_model: whether the request has the field ``model``.
    :param options: constant fields of every request.
    :param raw_options: fields that request logits; None if the service has none.
    :param answers_logits: whether the scores are always logits.
    :param results: path to the response's list of results.
    :param index: name of a result's field with the document's index.
    :param score: name of a result's field with the score.
    :param tokens: path to the response's number of tokens.
    :param max_documents: maximum number of documents in one request; None has no limit.
    """

    path: str
    key_variable: str = API_KEY_VARIABLE
    documents: str = "documents"
    wraps_query: bool = False
    wraps_documents: bool = False
    sends_model: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    raw_options: Mapping[str, Any] | None = None
    answers_logits: bool = False
    results: Sequence[str] = ("results",)
    index: str = "index"
    score: str = "relevance_score"
    tokens: Sequence[str] = ("usage", "total_tokens")
    max_documents: int | None = None

    def body(self, query: str, documents: Sequence[str], model: str | None, *, raw: bool) -> Any:
        """Build a request body.

        :param model: None leaves it to the service.
        :param raw: request logits; needs ``raw_options``.
        """
        return {
            **({"model": model} if self.sends_model and model else {}),
            "query": {"text": query} if self.wraps_query else query,
            self.documents: [
                {"text": document} if self.wraps_documents else document for document in documents
            ],
            **self.options,
            **((self.raw_options or {}) if raw else {}),
        }


_RAW_SCORES = {"raw_scores": True}

# reference: each service's API documentation; the tests hold an example of each
DIALECTS: Mapping[str, RemoteDialect] = {
    "cohere": RemoteDialect(
        path="/v2/rerank",
        key_variable="CO_API_KEY",
        tokens=("meta", "tokens", "input_tokens"),
        max_documents=10_000,
    ),
    "cohere-v1": RemoteDialect(
        path="/v1/rerank",
        key_variable="CO_API_KEY",
        options={"return_documents": False},
        max_documents=1_000,
    ),
    "jina": RemoteDialect(
        path="/v1/rerank", key_variable="JINA_API_KEY", options={"return_documents": False}
    ),
    "nebul": RemoteDialect(
        path="/v1/rerank", key_variable="NEBUL_API_KEY", raw_options=_RAW_SCORES
    ),
    "infinity": RemoteDialect(path="/rerank", raw_options=_RAW_SCORES, max_documents=2_048),
    "vllm": RemoteDialect(path="/rerank", raw_options={"use_activation": False}),
    "tei": RemoteDialect(
        path="/rerank",
        documents="texts",
        sends_model=False,
        options={"truncate": True},
        raw_options=_RAW_SCORES,
        results=(),
        score="score",
        tokens=(),
        max_documents=32,
    ),
    "cloudflare": RemoteDialect(
        path="/{model}",
        key_variable="CLOUDFLARE_API_TOKEN",
        documents="contexts",
        wraps_documents=True,
        sends_model=False,
        results=("result", "response"),
        index="id",
        score="score",
        tokens=(),
    ),
    "azion": RemoteDialect(path="/{model}", key_variable="AZION_TOKEN", sends_model=False),
    "voyage": RemoteDialect(
        path="/v1/rerank",
        key_variable="VOYAGE_API_KEY",
        results=("data",),
        max_documents=1_000,
    ),
    "nim": RemoteDialect(
        path="/v1/ranking",
        key_variable="NVIDIA_API_KEY",
        documents="passages",
        wraps_query=True,
        wraps_documents=True,
        options={"truncate": "END"},
        answers_logits=True,
        results=("rankings",),
        score="logit",
    ),
}
