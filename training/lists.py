"""Training lists: a query, one passage that answers it and some that do not."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence

from bge_rerank_integrations.tuning.data import TrainingList
from training.records import Data, Passage, Question
from training.requests import KEYWORDS, SENTENCE, SUBJECTS, TOPIC
from training.texts import normalized

NEGATIVES = 3
RANDOM_SHARE = 0.1

# Words of a passage at most. A third of the lists of long passages reach the model's 512 tokens.
SHORT_WORDS, MIDDLE_WORDS, LONG_WORDS = 120, 220, 380
LONG_SHARE = 0.33
LONG_SOURCES = SUBJECTS | {TOPIC, KEYWORDS, SENTENCE, "quac"}

# Of a passage that has a title, how often only that is shown, and how often a few sentences are.
TITLE_SHARE, WINDOW_SHARE = 0.25, 0.2


class ListSampler:
    """Draws training lists: which negatives, and how much of each passage is shown."""

    def __init__(self, data: Data, mined: Mapping[int, Sequence[Passage]], seed: int) -> None:
        self._data = data
        self._mined = mined
        self._rng = random.Random(seed)

    def draw(self, mix: Mapping[str, int]) -> list[TrainingList]:
        """Lists in random order.

        :param mix: how many lists of each source; a source with fewer questions repeats them, with
            other negatives.
        """
        members: dict[str, list[int]] = {}
        for index, question in enumerate(self._data.questions):
            members.setdefault(question.source, []).append(index)
        chosen = [
            index for source, count in mix.items() for index in self._some(members[source], count)
        ]
        self._rng.shuffle(chosen)
        lists = (self._list(index) for index in chosen)
        return [one for one in lists if len(one.documents) > 1]

    def _some(self, indices: Sequence[int], count: int) -> Iterator[int]:
        for _ in range(count // len(indices)):
            yield from indices
        yield from self._rng.sample(indices, count % len(indices))

    def _list(self, index: int) -> TrainingList:
        question = self._data.questions[index]
        passages = [self._rng.choice(question.positives)]
        passages += self._negatives(question, self._mined.get(index, []))
        words = SHORT_WORDS
        if question.source in LONG_SOURCES:
            words = LONG_WORDS if self._rng.random() < LONG_SHARE else MIDDLE_WORDS
        texts = [first_words(self._form(question, passage), words) for passage in passages]
        return TrainingList(question.query, tuple(texts), (1.0,) + (0.0,) * (len(texts) - 1))

    def _negatives(self, question: Question, mined: Sequence[Passage]) -> list[Passage]:
        candidates = list(question.judged_negatives or mined)
        chosen: list[Passage] = []
        while candidates and len(chosen) < NEGATIVES:
            if question.pool and self._rng.random() < RANDOM_SHARE:
                passage = self._rng.choice(self._data.pools[question.pool])
                if all(normalized(passage.text) != normalized(p.text) for p in question.positives):
                    chosen.append(passage)
                continue
            # The square of a uniform number favors the front: half of the draws fall into the
            # hardest quarter. Judged negatives are in no order.
            draw = self._rng.random()
            position = int(len(candidates) * (draw if question.judged_negatives else draw**2))
            chosen.append(candidates.pop(position))
        return chosen

    def _form(self, question: Question, passage: Passage) -> str:
        """How much of a passage is shown.

        Titles alone, a few sentences and whole passages meet in one list, and any of them can be
        the answer, so that length by itself says nothing.
        """
        draw = self._rng.random()
        # a title that is the question itself would give the answer away
        title = passage.title or passage.heading
        title = "" if normalized(title) == normalized(question.query) else title
        if title and question.source in LONG_SOURCES and draw < TITLE_SHARE:
            return title
        if draw < TITLE_SHARE + WINDOW_SHARE and len(passage.text) > 200 and question.pool:
            window = _window(passage.text, question.query, self._rng)
            return f"{title} {window}" if self._rng.random() < 0.5 else window
        return f"{title} {passage.text}".strip() if draw < 0.85 else passage.text


def first_words(text: str, count: int) -> str:
    """The beginning of a text, as the text has it."""
    end = next((m.end() for n, m in enumerate(re.finditer(r"\S+", text), 1) if n == count), None)
    return text[:end]


def _window(text: str, query: str, rng: random.Random) -> str:
    """One to three sentences of a text around the one that shares most words with the query."""
    parts = re.split(r"(?<=[.!?])\s+", text)
    words = set(normalized(query).split())
    overlap = [len(words & set(normalized(part).split())) for part in parts]
    best = overlap.index(max(overlap))
    return " ".join(parts[max(0, best - rng.randint(0, 1)) : best + 1 + rng.randint(0, 1)])
