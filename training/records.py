"""Training questions with their passages, and those that are kept for measuring."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bge_rerank_integrations.evaluation import Collection, read_beir, read_candidate_lists
from bge_rerank_integrations.jsonl import json_objects
from training.python_docs import python_docs
from training.texts import Twins, normalized

# Sets whose `group` is the title of the article that the passage comes from.
TITLED = {
    "qed-nq-train",
    "quotesum-dev",
    "selqa-dev-section",
    "squadshifts-new-wiki",
}

# Sets whose question is the title of its passage, or says as much.
ASKED_BY_TITLE = {"pubmedqa", "scitldr-tldr", "medquad", "texfaq"}

# Sets that share one pool of passages, so that their negatives are as hard as in a large corpus.
WIKIPEDIA = TITLED | {"nq-openbook-short", "boolq-dev"}
SCIENCE = {"pubmedqa", "scitldr-tldr", "covid-qa", "scifact-train"}

# Whole sets that are not trained on: they show what the model does, and what tuning adds, on a
# subject that it has not met.
UNSEEN = {"stackexchange-beer", "va-gov"}

# Of every other set, each third passage, with its questions, is kept for measuring; of these sets
# each third article, for their passages are parts of each other.
RESERVED_OF = 3
BY_ARTICLE = {"selqa-dev", "selqa-dev-section"}

# Jaccard index of the words of two questions: from here on the one is left out that would train.
SIMILAR = 0.6


@dataclass(frozen=True)
class Passage:
    """One text that can be ranked.

    `title` is empty where the source has none. `heading` is what the text was asked for with, where
    that says what it is about: not shown with the text to who asks the same.
    """

    text: str
    title: str = ""
    group: str = ""
    heading: str = ""


@dataclass(frozen=True)
class Question:
    """A query with the passages that answer it.

    `judged_negatives` are passages that people judged not to answer; `pool` names the passages
    among which further negatives may be searched ("" where only judged ones are to be used).
    """

    query: str
    positives: tuple[Passage, ...]
    source: str
    pool: str
    judged_negatives: tuple[Passage, ...] = ()


@dataclass
class Data:
    """Questions, and the passages of each pool: the positives of its questions."""

    questions: list[Question] = field(default_factory=list)
    pools: dict[str, list[Passage]] = field(default_factory=dict)


def is_reserved(question: Question) -> bool | None:
    """Whether a question is kept for measuring, by a fixed hash of its passages.

    :returns: None if only some of its passages are kept: then it is of no use to either part.
    """
    if not question.pool:
        return False
    keys = [
        passage.group if question.source in BY_ARTICLE else normalized(passage.text)
        for passage in question.positives
    ]
    kept = {zlib.crc32(key.encode()) % RESERVED_OF == 0 for key in keys}
    return kept.pop() if len(kept) == 1 else None


def load(pairs: Path, collections: Path) -> tuple[Data, Data]:
    """Read every training set and leave out what the evaluation sets contain.

    Left out are questions with a near twin in an evaluation set, and passages that are judged in
    one, as positives and as negatives.

    :param pairs: the JSON-lines file of (query, positive) pairs.
    :param collections: folder with `scifact-train` and `trecqa-wang`, and the evaluation
        collections `scifact-test`, `qed-nq-dev` and `vaswani`.
    :returns: what is trained on, and what is kept for measuring; they share no passage.
    """
    judged = judged_passages(collections)
    twins = Twins(evaluation_queries(collections))
    questions = [
        _without(question, judged)
        for question in [
            *(one for one in from_pairs(pairs) if one.source not in UNSEEN),
            *_from_beir(collections / "scifact-train"),
            *_from_trecqa(collections / "trecqa-wang" / "train.jsonl"),
        ]
        if not any(normalized(passage.text) in judged for passage in question.positives)
        and twins.closest(question.query) < SIMILAR
    ]
    training = [question for question in questions if is_reserved(question) is False]
    reserved = [question for question in questions if is_reserved(question)]
    return with_pools(training), with_pools(reserved)


def with_pools(questions: list[Question]) -> Data:
    """Questions with the pools that their positives make."""
    pools: dict[str, dict[str, Passage]] = {}
    for question in questions:
        if question.pool:
            pool = pools.setdefault(question.pool, {})
            for passage in question.positives:
                pool.setdefault(normalized(passage.text), passage)
    return Data(questions, {name: list(pool.values()) for name, pool in pools.items()})


def trained_on(data: Data) -> set[str]:
    """Normalized texts of all passages that training lists can have."""
    return {
        normalized(passage.text)
        for passage in [
            *(passage for pool in data.pools.values() for passage in pool),
            *(p for q in data.questions for p in (*q.positives, *q.judged_negatives)),
        ]
    }


def as_collection(
    name: str, data: Data, form: Callable[[Passage], str] | None = None
) -> Collection:
    """Questions over the passages of all pools.

    :param form: what is shown of a passage; by default its title, where it has one, and its text.
    """
    passages = {
        normalized(passage.text): passage for pool in data.pools.values() for passage in pool
    }
    names = {text: f"d{number}" for number, text in enumerate(passages)}
    asked = {f"q{number}": q for number, q in enumerate(data.questions) if q.pool}
    return Collection(
        name,
        {query: question.query for query, question in asked.items()},
        {names[text]: (form or titled)(passage) for text, passage in passages.items()},
        {
            query: {names[normalized(passage.text)]: 1 for passage in question.positives}
            for query, question in asked.items()
        },
    )


def titled(passage: Passage) -> str:
    """A passage's title, where it has one, and its text."""
    return f"{passage.title} {passage.text}".strip()


def evaluation_queries(collections: Path) -> list[str]:
    """The questions of all evaluation sets."""
    trecqa = collections / "trecqa-wang" / "dev.jsonl"
    return [
        *(
            row["text"]
            for name in ("scifact-test", "qed-nq-dev", "vaswani")
            for _, row in json_objects(collections / name / "queries.jsonl")
        ),
        *(row["query"] for _, row in json_objects(trecqa)),
        *python_docs().queries.values(),
    ]


def judged_passages(collections: Path) -> set[str]:
    """Normalized texts of the passages that are judged in an evaluation set."""
    scifact = read_beir(collections / "scifact-test", form=lambda passage: passage.text)
    relevant = {name for grades in scifact.relevance.values() for name in grades}
    trecqa = collections / "trecqa-wang" / "dev.jsonl"
    texts: Iterable[str] = [
        *(scifact.documents[name] for name in relevant),
        *(row["text"] for _, row in json_objects(collections / "qed-nq-dev" / "corpus.jsonl")),
        *(text for _, row in json_objects(trecqa) for text in row["candidates"]),
    ]
    return {normalized(text) for text in texts}


def _without(question: Question, judged: set[str]) -> Question:
    negatives = [p for p in question.judged_negatives if normalized(p.text) not in judged]
    return Question(
        question.query, question.positives, question.source, question.pool, tuple(negatives)
    )


def from_pairs(path: Path) -> Iterator[Question]:
    """Questions of the file of pairs, each with all its answers."""
    answers: dict[tuple[str, str], dict[str, Passage]] = {}
    negatives: dict[tuple[str, str], list[str]] = {}
    for _, row in json_objects(path):
        source = row["set"]
        group = row.get("group", "")
        title = group.replace("_", " ") if source in TITLED else ""
        heading = row["query"] if source in ASKED_BY_TITLE else ""
        key = (source, row["query"])
        passage = Passage(row["positive"], title, group, heading)
        answers.setdefault(key, {}).setdefault(normalized(passage.text), passage)
        negatives.setdefault(key, []).extend(row.get("negatives", ()))
    for (source, query), passages in answers.items():
        yield Question(
            query,
            tuple(passages.values()),
            source,
            pool="wikipedia" if source in WIKIPEDIA else "science" if source in SCIENCE else source,
            judged_negatives=tuple(Passage(text) for text in negatives[source, query]),
        )


def _from_beir(folder: Path) -> Iterator[Question]:
    collection = read_beir(folder)
    passages = {
        row["_id"]: Passage(row["text"], row.get("title", "").replace("_", " "))
        for _, row in json_objects(folder / "corpus.jsonl")
    }
    for query, judged in collection.relevance.items():
        positives = tuple(passages[name] for name, grade in judged.items() if grade > 0)
        yield Question(collection.queries[query], positives, folder.name, "science")


def _from_trecqa(path: Path) -> Iterator[Question]:
    collection = read_candidate_lists(path)
    texts = collection.documents
    for query, judged in collection.relevance.items():
        positives = tuple(Passage(texts[name]) for name, grade in judged.items() if grade > 0)
        negatives = tuple(Passage(texts[name]) for name, grade in judged.items() if grade <= 0)
        yield Question(collection.queries[query], positives, "trecqa-train", "", negatives)
