"""What a model is trained on: a user's questions and documents, in one of three formats, as lists.

A list is one question with documents that answer it, and others that are hard to tell from those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..context.duplicates import without_duplicates
from ..errors import InputError
from ..evaluation.collection import Collection, find_qrels, read_beir, read_unjudged
from ..evaluation.runs import Run
from ..jsonl import Place, json_objects, string
from ..ranking import PairScorer, Reranker

# negatives of a question: how many from which ranks of the first stage
_HARDNESS = ((0, 10, 3), (10, 30, 2), (30, 50, 1))
_MOST_POSITIVES = 3
_FEWEST_QUESTIONS = 10
# checkpoints are compared by the first documents of a few questions, so that it takes little time
_VALIDATION_QUESTIONS, _VALIDATION_DEPTH = 30, 20


@dataclass(frozen=True)
class Split:
    """Questions by what they are for; none is in two parts.

    :param training: they make the training lists.
    :param validation: they choose between checkpoints.
    :param held_out: they measure before and after, and nothing else.
    """

    training: Collection
    validation: Collection
    held_out: Collection


@dataclass(frozen=True)
class TrainingList:
    """One question with the documents that it is trained on.

    :param labels: of each document 1 or 0, or a teacher's logit.
    """

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]


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


def split(collection: Collection, held_out_share: float, seed: int) -> Split:
    """Draw the questions of each part at random.

    Equal questions go to one part: that of the first.

    :param held_out_share: of the questions that measure; half as many choose between checkpoints.
    :raises InputError: if there are too few questions.
    """
    by_text: dict[str, list[str]] = {}
    for query, text in collection.queries.items():
        by_text.setdefault(" ".join(text.casefold().split()), []).append(query)
    if len(by_text) < _FEWEST_QUESTIONS:
        raise InputError(
            f"{collection.name}: tuning needs at least {_FEWEST_QUESTIONS} different questions, "
            f"got {len(by_text)}"
        )
    groups = list(by_text.values())
    random.Random(seed).shuffle(groups)
    measured = max(2, round(held_out_share * len(groups)))
    chosen = measured + max(1, measured // 2)
    return Split(
        *(
            collection.only({query for group in part for query in group})
            for part in (groups[chosen:], groups[measured:chosen], groups[:measured])
        )
    )


def training_lists(collection: Collection, first_stage: Run, seed: int) -> list[TrainingList]:
    """Lists of positives, judged negatives, and negatives from several ranks of the first stage.

    A document that nearly repeats a positive, or another negative, is no negative.

    :param first_stage: rankings of the collection's questions.
    """
    chooser = random.Random(seed)
    lists = []
    for query, text in collection.queries.items():
        grades = collection.relevance[query]
        relevant = {name: None for name, grade in grades.items() if grade > 0}
        positives = [name for name in relevant if name in collection.documents]
        if not positives:
            continue
        ranked = [name for name in first_stage.order[query] if name not in relevant]
        refused = [name for name, grade in grades.items() if grade <= 0]
        taken = positives[:_MOST_POSITIVES]
        negatives = _negatives(collection.documents, positives, refused, ranked, chooser)
        names = [*taken, *negatives]
        lists.append(
            TrainingList(
                text,
                tuple(collection.documents[name] for name in names),
                (1.0,) * len(taken) + (0.0,) * len(negatives),
            )
        )
    return [one for one in lists if len(one.documents) > 1]


def judged_by(teacher: Reranker, collection: Collection, first_stage: Run) -> Collection:
    """The collection with a teacher's judgments of what the first stage finds.

    :param teacher: what it scores 0.5 and more, as a probability, is relevant.
    :raises InputError: if it finds nothing relevant.
    """
    relevance = {}
    for query, text in collection.queries.items():
        found = first_stage.order[query]
        ranking = teacher.rerank(text, [collection.documents[name] for name in found])
        grades = {found[ranked.index]: int(ranked.score >= 0.5) for ranked in ranking}
        if any(grades.values()):
            relevance[query] = grades
    if not relevance:
        raise InputError(f"{collection.name}: {teacher.model} finds no document relevant")
    return replace(collection, relevance=relevance).only(relevance)


def with_teacher_logits(lists: Sequence[TrainingList], teacher: PairScorer) -> list[TrainingList]:
    """The lists with the teacher's logits for labels.

    :param teacher: with ``normalize=False``.
    """
    pairs = ((one.query, document) for one in lists for document in one.documents)
    logits = iter(teacher.score_pairs(pairs))
    return [replace(one, labels=tuple(islice(logits, len(one.documents)))) for one in lists]


def blend_labels(
    judged: Sequence[TrainingList], logits: Sequence[TrainingList], share: float
) -> list[TrainingList]:
    """Judged lists whose labels give a share to what a model finds relevant: some unjudged answer.

    :param logits: the same lists with the model's logits for labels.
    """
    lists = []
    for one, other in zip(judged, logits, strict=True):
        found = torch.tensor(other.labels).softmax(0).tolist()
        labels = [
            (1 - share) * label + share * probability
            for label, probability in zip(one.labels, found, strict=True)
        ]
        lists.append(replace(one, labels=tuple(labels)))
    return lists


def validation_samples(
    collection: Collection, first_stage: Run, questions: int = _VALIDATION_QUESTIONS
) -> list[dict[str, Any]]:
    """Some of the questions as sentence-transformers' evaluator reads them."""
    collection, texts = collection.sample(questions), collection.documents
    samples = []
    for name, query in collection.queries.items():
        grades = collection.relevance[name]
        positives = [one for one, grade in grades.items() if grade > 0 and one in texts]
        # positives that the first stage did not find come last: every list has something to rank
        documents = dict.fromkeys([*first_stage.order[name][:_VALIDATION_DEPTH], *positives])
        if len(documents) == 1:
            # a document alone has no rank
            documents |= dict.fromkeys(islice(texts, 2))
        samples.append(
            {
                "query": query,
                "positive": [texts[one] for one in positives],
                "documents": [texts[one] for one in documents],
            }
        )
    return [sample for sample in samples if sample["positive"]]


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


def _negatives(
    documents: Mapping[str, str],
    positives: Sequence[str],
    refused: Sequence[str],
    ranked: Sequence[str],
    chooser: random.Random,
) -> list[str]:
    """Ids of one question's negatives.

    :param refused: judged negatives; they come first.
    :param ranked: the first stage's other documents, best first.
    """
    wanted = sum(count for *_, count in _HARDNESS)
    judged = dict.fromkeys(name for name in refused if name in documents)
    names = [*positives, *(judged | dict.fromkeys(ranked))]
    different = without_duplicates(documents[name] for name in names)
    candidates = [names[index] for index in different if index >= len(positives)]
    chosen = [name for name in candidates if name in judged][:wanted]
    mined = [name for name in candidates if name not in chosen]
    for first, last, count in _HARDNESS:
        room = min(count, wanted - len(chosen))
        chosen += chooser.sample(mined[first:last], min(room, len(mined[first:last])))
    # a short ranking leaves places: documents that the first stage did not find are easy negatives
    if missing := wanted - len(chosen):
        names = list(documents)
        left_out = {*positives, *chosen, *ranked}
        drawn = chooser.sample(names, min(len(names), 4 * wanted))
        chosen += [name for name in drawn if name not in left_out][:missing]
    return chosen
