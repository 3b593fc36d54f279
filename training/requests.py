"""Requests that are no questions: topics, keywords and sentences, made from passages.

A question names what it wants to know; many users type a few words, or name a subject. Such a
request has the passage that it was made from for its answer.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bm25s.stopwords import STOPWORDS_EN_PLUS

from bge_rerank_integrations.highlighting import sentences
from training.records import Data, Passage, Question
from training.texts import normalized

TOPIC, KEYWORDS, SENTENCE, WINDOWS = "topics", "keywords", "sentences", "windows"

# Sets whose passages are about one subject each.
SUBJECTS = {"pubmedqa", "scitldr-tldr", "medquad", "texfaq", "covid-qa", "scifact-train"}

TEMPLATES = (
    "{}",
    "{}",
    "articles about {}",
    "I am interested in articles describing {}",
    "I am looking for information on {}",
    "documents on {}",
    "papers that discuss {}",
    "find work on {}",
    "what is known about {}",
    "literature on {}",
)


class Rarity:
    """How rare words are in a collection of texts."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._texts = len(passages)
        self._counts = Counter(
            word
            for passage in passages
            for word in set(normalized(f"{passage.title} {passage.text}").split())
        )

    def rarest(self, text: str, count: int) -> list[str]:
        """Words that occur most often in a text for how rare they are elsewhere, in text order."""
        words = [
            word
            for word in normalized(text).split()
            if len(word) > 2 and word not in STOPWORDS_EN_PLUS and not word.isdigit()
        ]
        weights = {
            word: times * math.log(self._texts / self._counts.get(word, 1))
            for word, times in Counter(words).items()
        }
        chosen = sorted(weights, key=lambda word: -weights[word])[:count]
        return sorted(chosen, key=words.index)


def made_up(data: Data, seed: int) -> list[Question]:
    """A request of each kind for every passage about one subject, in random order.

    A sentence is asked for in the passage that is left without it.
    """
    rng = random.Random(seed)
    rarity = Rarity([passage for pool in data.pools.values() for passage in pool])
    requests = []
    for question in data.questions:
        if question.source not in SUBJECTS:
            continue
        passage = question.positives[0]
        whole = replace(question, positives=(passage,))
        requests.append(replace(whole, query=_topic(question, rarity, rng), source=TOPIC))
        keywords = " ".join(rarity.rarest(f"{passage.title} {passage.text}", rng.randint(2, 4)))
        requests.append(replace(whole, query=keywords, source=KEYWORDS))
        parts = [passage.text[start:end] for start, end in sentences(passage.text)]
        asked = [part for part in parts[1:] if 6 <= len(part.split()) <= 40]
        if asked and len(parts) >= 4:
            sentence = rng.choice(asked)
            rest = replace(passage, text=passage.text.replace(sentence, ""))
            requests.append(
                replace(whole, query=sentence.strip(), positives=(rest,), source=SENTENCE)
            )
    requests = [one for one in requests if len(one.query.split()) > 1]
    rng.shuffle(requests)
    return requests


def _topic(question: Question, rarity: Rarity, rng: random.Random) -> str:
    """A subject in words of the question, its title or both, in one of several phrasings."""
    passage = question.positives[0]
    about = rng.choice([question.query, passage.title or question.query, passage.text])
    words = rarity.rarest(about, rng.randint(3, 6))
    if rng.random() < 0.3 and len(words) > 3:
        subject = f"{' '.join(words[:2])}, {' '.join(words[2:-1])} and {words[-1]}"
    else:
        subject = " ".join(words)
    return rng.choice(TEMPLATES).format(subject)


def sentence_windows(data: Data) -> list[Question]:
    """Sentences with the one before: those that answer a question against the rest of the section.

    From selqa, which says which sentences of a section answer; what pruning scores looks alike.
    """
    sections = {
        question.query: question.positives[0].text
        for question in data.questions
        if question.source == "selqa-dev-section"
    }
    questions = []
    for question in data.questions:
        if question.source != "selqa-dev" or question.query not in sections:
            continue
        text = sections[question.query]
        ranges = sentences(text)
        windows = [
            text[before[0] : this[1]].strip()
            for before, this in zip([ranges[0], *ranges], ranges, strict=False)
        ]
        answers = [re.sub(r"\W+", " ", passage.text).strip() for passage in question.positives]
        told = [
            (window, any(answer in re.sub(r"\W+", " ", window) for answer in answers))
            for window in windows
        ]
        answering, others = (
            tuple(Passage(window) for window, answers in told if answers is kind)
            for kind in (True, False)
        )
        if answering and others:
            questions.append(Question(question.query, answering, WINDOWS, "", others))
    return questions
