"""Questions by what they are for, and what they are trained on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from fake_reranker import FakeReranker

from bge_rerank_integrations import InputError, RankedDocument, Ranking
from bge_rerank_integrations.evaluation import Collection, Run
from bge_rerank_integrations.tuning.data import (
    TrainingList,
    blend_labels,
    judged_by,
    split,
    training_lists,
    with_teacher_logits,
)

# no two share a run of five words
DOCUMENTS = {f"d{n}": f"a{n} b{n} c{n} number {n} of many" for n in range(60)}
COLLECTION = Collection(
    "mine",
    queries={f"q{n}": f"question {n}" for n in range(40)},
    documents=DOCUMENTS,
    relevance={f"q{n}": {f"d{n}": 1} for n in range(40)},
)
RUN = Run("first", {query: list(DOCUMENTS)[:50] for query in COLLECTION.queries})


def test_each_question_is_for_one_thing() -> None:
    parts = split(COLLECTION, 0.2, seed=0)
    counted = Counter(
        query
        for part in (parts.training, parts.validation, parts.held_out)
        for query in part.queries
    )
    assert counted == dict.fromkeys(COLLECTION.queries, 1)
    assert (len(parts.held_out.queries), len(parts.validation.queries)) == (8, 4)
    assert split(COLLECTION, 0.2, seed=0) == parts
    assert split(COLLECTION, 0.2, seed=1) != parts


def test_equal_questions_stay_together() -> None:
    """Case and spaces make no other question."""
    forms = ["Question  {}", " question {}", "QUESTION\n{} ", "question {}"]
    texts = {
        query: forms[int(query[1:]) % 4].format(int(query[1:]) // 4) for query in COLLECTION.queries
    }
    parts = split(replace(COLLECTION, queries=texts), 0.3, seed=0)
    numbers = [
        {text.split()[1] for text in part.queries.values()}
        for part in (parts.training, parts.validation, parts.held_out)
    ]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 10


def test_too_few_questions_are_refused() -> None:
    few = COLLECTION.only({f"q{n}" for n in range(9)})
    with pytest.raises(InputError, match="at least 10 different questions, got 9"):
        split(few, 0.2, seed=0)


def test_negatives_come_from_several_ranks() -> None:
    one = training_lists(COLLECTION.only({"q55", "q7"}), RUN, seed=0)[0]
    assert one.labels == (1.0,) + (0.0,) * 6
    assert one.documents[0] == DOCUMENTS["d7"]
    ranks = [list(DOCUMENTS.values()).index(text) for text in one.documents[1:]]
    # the positive's own rank is passed over
    assert [sum(rank < limit for rank in ranks) for limit in (11, 31, 51)] == [3, 5, 6]


def test_what_repeats_a_positive_is_no_negative() -> None:
    copies = {f"c{n}": f"{DOCUMENTS['d7'].upper()} {'!' * n}" for n in range(3)}
    mine = replace(COLLECTION, documents={**DOCUMENTS, **copies}).only({"q7"})
    run = Run("first", {"q7": [*copies, *list(DOCUMENTS)[:20]]})
    (one,) = training_lists(mine, run, seed=0)
    assert not {*copies.values()} & {*one.documents}
    assert one.documents.count(DOCUMENTS["d7"]) == 1


def test_judged_negatives_come_first_and_a_short_ranking_is_filled_up() -> None:
    judged = {"q1": {"d1": 1, "d2": 0, "d3": -1}}
    mine = replace(COLLECTION.only({"q1"}), relevance=judged)
    (one,) = training_lists(mine, Run("first", {"q1": ["d1", "d4"]}), seed=0)
    assert one.documents[:4] == tuple(DOCUMENTS[name] for name in ("d1", "d2", "d3", "d4"))
    assert len(one.documents) == 7
    assert len(set(one.documents)) == 7


def test_a_question_whose_answer_is_not_in_the_corpus_is_left_out() -> None:
    mine = replace(COLLECTION.only({"q1"}), relevance={"q1": {"gone": 1}})
    assert training_lists(mine, RUN, seed=0) == []


class Teacher(FakeReranker):
    """Scores a document with the number in it, less five.

    :param divisor: of these scores.
    """

    def __init__(self, divisor: float = 1.0) -> None:
        super().__init__()
        self._divisor = divisor

    def score_pairs(self, pairs: Iterable[Sequence[str]]) -> list[float]:
        return [(float(text.split()[4]) - 5) / self._divisor for _, text in pairs]

    def rerank(self, query: str, documents: object, *_: object) -> Ranking:
        assert isinstance(documents, (list, tuple))
        numbers = self.score_pairs([(query, text) for text in documents])
        order = sorted(range(len(numbers)), key=lambda index: -numbers[index])
        return Ranking(tuple(RankedDocument(index, numbers[index]) for index in order))


def test_a_teachers_logits_are_the_labels() -> None:
    lists = training_lists(COLLECTION.only({"q7"}), RUN, seed=0)
    (one,) = with_teacher_logits(lists, Teacher())
    assert one.documents == lists[0].documents
    assert one.labels == tuple(float(text.split()[4]) - 5 for text in one.documents)


def test_a_teacher_judges_what_nobody_has_judged() -> None:
    unjudged = replace(COLLECTION.only({"q1"}), relevance={})
    found = Run("first", {"q1": ["d4", "d5", "d6", "d9"]})
    judged = judged_by(Teacher(), unjudged, found)
    assert judged.relevance == {"q1": {"d4": 0, "d5": 0, "d6": 1, "d9": 1}}
    # of probabilities, one half is enough and 0.49 is not
    found = Run("first", {"q1": ["d54", "d55", "d59"]})
    judged = judged_by(Teacher(divisor=100), unjudged, found)
    assert judged.relevance == {"q1": {"d54": 0, "d55": 1, "d59": 1}}
    with pytest.raises(InputError, match="finds no document relevant"):
        judged_by(Teacher(), unjudged, Run("first", {"q1": ["d4"]}))


def test_labels_are_shared_between_people_and_a_model() -> None:
    judged = TrainingList("tea", ("milk", "some tea"), (1.0, 0.0))
    (one,) = blend_labels([judged], [replace(judged, labels=(0.0, math.log(3)))], share=0.4)
    assert one.labels == pytest.approx((0.6 + 0.4 * 0.25, 0.4 * 0.75))
    assert (one.query, one.documents) == (judged.query, judged.documents)
