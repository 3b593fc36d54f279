"""What a model is trained on: questions with positives, and negatives that are hard to tell."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from bge_rerank_integrations.context.duplicates import without_duplicates
from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.runs import Run
from bge_rerank_integrations.ranking import PairScorer, Reranker

# negatives of a question: how many from which ranks of the first stage
_HARDNESS = ((0, 10, 3), (10, 30, 2), (30, 50, 1))
_MOST_POSITIVES = 3
_FEWEST_QUESTIONS = 10


@dataclass(frozen=True)
class Split:
    """Questions by what they are for; none is in two parts.

    :param training: they make the training lists.
    :param choosing: they choose between checkpoints.
    :param held_out: they measure before and after, and nothing else.
    """

    training: Collection
    choosing: Collection
    held_out: Collection


@dataclass(frozen=True)
class TrainingList:
    """One question with the documents that it is trained on.

    :param labels: of each document 1 or 0, or a teacher's logit.
    """

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]


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


def taught(lists: Sequence[TrainingList], teacher: PairScorer) -> list[TrainingList]:
    """The lists with the teacher's logits for labels.

    :param teacher: with ``normalize=False``.
    """
    pairs = ((one.query, document) for one in lists for document in one.documents)
    logits = iter(teacher.score_pairs(pairs))
    return [replace(one, labels=tuple(islice(logits, len(one.documents)))) for one in lists]


def mixed(
    judged: Sequence[TrainingList], logits: Sequence[TrainingList], share: float
) -> list[TrainingList]:
    """Judged lists whose labels give a share to what a model finds relevant.

    A document that nobody judged may answer, and the model then says so.

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
