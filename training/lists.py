"""Training lists: a query, one passage that answers it and some that do not."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.negatives import judged_or_mined
from training.records import Data, Passage, Question, normalized


@dataclass(frozen=True)
class Mix:
    """What a stage of training draws.

    :param weights: lists of each source in one epoch, as a factor on its questions.
    :param other_weight: the factor of the sources that are not named.
    :param long_tokens: tokens of a pair of a source in ``LONG_SOURCES``.
    :param random_share: negatives that are drawn at random, not by BM25.
    """

    weights: Mapping[str, float]
    other_weight: float
    long_tokens: int
    random_share: float


# Sets close to real use count more; templated or easy ones (medquad, qamr) less.
GENERAL = Mix(
    {
        "scifact-train": 6.0,
        "qed-nq-train": 2.0,
        "trecqa-train": 12.0,
        "selqa-dev": 2.0,
        "selqa-dev-section": 0.5,
        "squad-train-sentence-nqg": 0.5,
        "squadshifts-new-wiki": 0.6,
        "xquad-en": 0.5,
        "dolly-open-qa": 0.8,
        "medquad": 0.3,
        "qamr-wiki": 0.3,
        "quac": 0.5,
    },
    other_weight=1.0,
    long_tokens=256,
    random_share=0.12,
)

# Claims against whole abstracts, and enough of the rest to keep it.
SCIENCE = Mix(
    {
        "scifact-train": 10.0,
        "scitldr-tldr": 1.0,
        "pubmedqa": 1.0,
        "covid-qa": 0.5,
        "qed-nq-train": 0.5,
        "trecqa-train": 6.0,
        "selqa-dev": 1.0,
        "boolq-dev": 0.25,
        "dolly-open-qa": 0.25,
        "squadshifts-new-wiki": 0.1,
        "squad-train-sentence-nqg": 0.1,
        "medquad": 0.1,
        "texfaq": 1.0,
        "stackexchange-beer": 0.5,
        "va-gov": 0.5,
    },
    other_weight=0.2,
    long_tokens=400,
    random_share=0.05,
)

# Scientific abstracts are longer than the rest, and the query is a claim about one sentence.
LONG_SOURCES = {"scifact-train", "pubmedqa", "scitldr-tldr"}
SHORT_TOKENS = 176


@dataclass(frozen=True)
class TrainingList:
    """One query with its texts; the first text is the relevant one."""

    query: str
    texts: tuple[str, ...]
    max_tokens: int


def epoch(questions: Sequence[tuple[int, Question]], mix: Mix, rng: random.Random) -> list[int]:
    """Indices of the questions of one epoch in random order, repeated by their weight."""
    chosen: list[int] = []
    for index, question in questions:
        weight = mix.weights.get(question.source, mix.other_weight)
        chosen += [index] * (int(weight) + (rng.random() < weight % 1.0))
    rng.shuffle(chosen)
    return chosen


class ListSampler:
    """Draws training lists: which negatives, and how much of each passage is shown."""

    def __init__(self, data: Data, mined: dict[int, list[Passage]], mix: Mix, seed: int) -> None:
        self._mix = mix
        self._data = data
        self._mined = mined
        self._rng = random.Random(seed)

    def sample(self, index: int, negatives: int) -> TrainingList:
        """One list of `1 + negatives` texts at most for the question at `index`."""
        question = self._data.questions[index]
        passages = [self._rng.choice(question.positives)]
        passages += self._negatives(question, self._mined.get(index, []), negatives)
        long = question.source in LONG_SOURCES
        return TrainingList(
            question.query,
            tuple(self._form(question, passage) for passage in passages),
            self._mix.long_tokens if long else SHORT_TOKENS,
        )

    def _negatives(self, question: Question, mined: Sequence[Passage], count: int) -> list[Passage]:
        candidates = list(judged_or_mined(question, mined))
        chosen: list[Passage] = []
        while candidates and len(chosen) < count:
            if question.pool and self._rng.random() < self._mix.random_share:
                passage = self._rng.choice(self._data.pools[question.pool])
                if all(normalized(passage.text) != normalized(p.text) for p in question.positives):
                    chosen.append(passage)
                continue
            # The square of a uniform number favours the front: half of the draws fall into the
            # hardest quarter. Judged negatives are in no order.
            draw = self._rng.random()
            position = int(len(candidates) * (draw if question.judged_negatives else draw**2))
            chosen.append(candidates.pop(position))
        return chosen

    def _form(self, question: Question, passage: Passage) -> str:
        """How much of a passage is shown.

        Short and long forms meet in one list, so that length by itself says nothing.
        """
        draw = self._rng.random()
        titled = f"{passage.title} {passage.text}" if passage.title else passage.text
        if question.source == "scifact-train":
            if draw < 0.14:
                return passage.title
            if draw < 0.24:
                return passage.text
            if draw < 0.34:
                return f"{passage.title} {_window(passage.text, question.query, self._rng)}"
            return titled
        if draw < 0.5:
            return titled
        if draw < 0.78 or len(passage.text) < 200:
            return passage.text
        return _window(passage.text, question.query, self._rng)


def _window(text: str, query: str, rng: random.Random) -> str:
    """One to three sentences of a text around the one that shares most words with the query."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    words = set(normalized(query).split())
    overlap = [len(words & set(normalized(sentence).split())) for sentence in sentences]
    best = overlap.index(max(overlap))
    return " ".join(sentences[max(0, best - rng.randint(0, 1)) : best + 1 + rng.randint(0, 1)])
