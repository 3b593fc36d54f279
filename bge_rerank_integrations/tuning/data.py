"""A user's questions and documents, in one of three formats, as a collection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.reading import find_qrels, read_beir, read_unjudged
from bge_rerank_integrations.jsonl import Place, json_objects, string


def read_data(path: Path, *, judged: bool = True) -> Collection:
    """Read what a model is tuned on.

    :param path: a folder in BEIR's layout; lines of FlagEmbedding's ``{"query", "pos", "neg"}``
        (``.jsonl``); or a LlamaIndex ``EmbeddingQAFinetuneDataset`` (``.json``).
    :param judged: whether relevant documents must be known; without, a folder may lack its qrels.
        Where it has them, they count, and questions that nobody has judged are left out.
    :raises InputError: naming the file, and the line or id where one is wrong.
    """
    if path.is_dir():
        return _read_folder(path, judged=judged)
    if path.suffix == ".jsonl":
        return _read_lines(path)
    if path.suffix == ".json":
        return _read_dataset(path)
    raise InputError(f"{path}: expected a folder in BEIR's layout, a .jsonl or a .json file")


def _read_folder(path: Path, *, judged: bool) -> Collection:
    """A folder in BEIR's layout, whose corpus must have every relevant document."""
    collection = read_beir(path) if judged or find_qrels(path) else read_unjudged(path)
    if not collection.documents:
        raise InputError(f"{path}: there is no document in corpus.jsonl")
    for query, grades in collection.relevance.items():
        for document, grade in grades.items():
            if grade > 0 and document not in collection.documents:
                raise InputError(
                    f"{path}: query {query!r}: relevant document {document!r} is not in "
                    "corpus.jsonl"
                )
    return collection


def _read_lines(path: Path) -> Collection:
    """Questions with their positive and negative texts; equal texts are one document."""
    queries: dict[str, str] = {}
    ids: dict[str, str] = {}
    relevance: dict[str, dict[str, int]] = {}
    for place, given in json_objects(path):
        query = str(len(queries) + 1)
        queries[query] = string(given, "query", place)
        positives = _texts(given, "pos", place)
        if not positives:
            raise InputError(f"{place}: 'pos' must have at least one text")
        negatives = _texts(given, "neg", place) if "neg" in given else []
        for text in (*positives, *negatives):
            ids.setdefault(text, f"d{len(ids) + 1}")
        relevance[query] = {ids[text]: 0 for text in negatives} | {
            ids[text]: 1 for text in positives
        }
    if not queries:
        raise InputError(f"{path}: there is no question in this file")
    documents = {name: text for text, name in ids.items()}
    return Collection(path.stem, queries, documents, relevance)


def _texts(given: dict[str, Any], key: str, place: Place) -> list[str]:
    texts = given.get(key)
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise InputError(f"{place}: {key!r} must be a list of strings")
    return texts


def _read_dataset(path: Path) -> Collection:
    """LlamaIndex's file: ``queries``, ``corpus`` and ``relevant_docs`` by id."""
    try:
        given = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    queries, documents, relevant = (
        _mapping(given, name, path) for name in ("queries", "corpus", "relevant_docs")
    )
    for name, texts in (("queries", queries), ("corpus", documents)):
        for one, text in texts.items():
            if not isinstance(text, str):
                raise InputError(f"{path}: {name}[{one!r}] must be a string")
    relevance: dict[str, dict[str, int]] = {}
    for query in queries:
        judged = relevant.get(query)
        if not (isinstance(judged, list) and judged):
            raise InputError(f"{path}: query {query!r} has no relevant_docs")
        if absent := [one for one in judged if one not in documents]:
            raise InputError(
                f"{path}: relevant_docs[{query!r}]: {absent[0]!r} is not in the corpus"
            )
        relevance[query] = dict.fromkeys(judged, 1)
    if not relevance:
        raise InputError(f"{path}: there is no question in this file")
    return Collection(path.stem, queries, documents, relevance)


def _mapping(given: object, name: str, path: Path) -> Mapping[str, Any]:
    value = given.get(name) if isinstance(given, dict) else None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected the objects queries, corpus and relevant_docs")
    return value
