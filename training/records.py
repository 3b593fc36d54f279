"""Training questions with their candidate passages, read from local files."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bge_rerank_integrations.evaluation import read_beir, read_candidate_lists
from bge_rerank_integrations.jsonl import json_objects

# Sets whose `group` is the title of the article that the passage comes from.
TITLED = {
    "qed-nq-train",
    "quotesum-dev",
    "selqa-dev-section",
    "squadshifts-new-wiki",
}

# Sets that share one pool of passages, so that their negatives are as hard as in a large corpus.
WIKIPEDIA = TITLED | {"nq-openbook-short", "boolq-dev", "xquad-en"}


@dataclass(frozen=True)
class Passage:
    """One text that can be ranked; `title` is empty where the source has none."""

    text: str
    title: str = ""
    group: str = ""


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
    """All questions, and the passages of each pool."""

    questions: list[Question] = field(default_factory=list)
    pools: dict[str, list[Passage]] = field(default_factory=dict)


def normalized(text: str) -> str:
    """Words of a text, lower-cased: equal for texts that differ in case and punctuation only."""
    return " ".join(re.findall(r"\w+", text.lower()))


def load(pairs: Path, collections: Path) -> Data:
    """Read every training set and leave out what the evaluation sets contain.

    :param pairs: the JSON-lines file of (query, positive) pairs.
    :param collections: folder with `scifact-train`, `xquad-en`, `trecqa-wang` and the evaluation
        collections `scifact-test` and `qed-nq-dev`.
    """
    questions = [
        *_from_pairs(pairs),
        *_from_beir(collections / "scifact-train", pool="scifact-train"),
        *_from_beir(collections / "xquad-en", pool="wikipedia"),
        *_from_trecqa(collections / "trecqa-wang" / "train.jsonl"),
    ]
    forbidden_queries, forbidden_positives = _evaluation_texts(collections)
    kept = [
        question
        for question in questions
        if normalized(question.query) not in forbidden_queries
        and not any(normalized(p.text) in forbidden_positives for p in question.positives)
    ]
    pools: dict[str, dict[str, Passage]] = {}
    for question in kept:
        if question.pool:
            pool = pools.setdefault(question.pool, {})
            for passage in question.positives:
                pool.setdefault(normalized(passage.text), passage)
    scifact = pools["scifact-train"]
    for passage in _corpus(collections / "scifact-train").values():
        scifact.setdefault(normalized(passage.text), passage)
    return Data(kept, {name: list(pool.values()) for name, pool in pools.items()})


def _from_pairs(path: Path) -> Iterator[Question]:
    answers: dict[tuple[str, str], dict[str, Passage]] = {}
    negatives: dict[tuple[str, str], list[str]] = {}
    for _, row in json_objects(path):
        source = row["set"]
        group = row.get("group", "")
        title = group.replace("_", " ") if source in TITLED else ""
        key = (source, row["query"])
        passage = Passage(row["positive"], title, group)
        answers.setdefault(key, {}).setdefault(normalized(passage.text), passage)
        negatives.setdefault(key, []).extend(row.get("negatives", ()))
    for (source, query), passages in answers.items():
        yield Question(
            query,
            tuple(passages.values()),
            source,
            pool="wikipedia" if source in WIKIPEDIA else source,
            judged_negatives=tuple(Passage(text) for text in negatives[source, query]),
        )


def _corpus(folder: Path) -> dict[str, Passage]:
    return {
        row["_id"]: Passage(row["text"], row.get("title", "").replace("_", " "))
        for _, row in json_objects(folder / "corpus.jsonl")
    }


def _from_beir(folder: Path, pool: str) -> Iterator[Question]:
    collection, corpus = read_beir(folder), _corpus(folder)
    for query, judged in collection.relevance.items():
        positives = tuple(corpus[name] for name, grade in judged.items() if grade > 0)
        yield Question(collection.queries[query], positives, folder.name, pool)


def _from_trecqa(path: Path) -> Iterator[Question]:
    collection = read_candidate_lists(path)
    texts = collection.documents
    for query, judged in collection.relevance.items():
        positives = tuple(Passage(texts[name]) for name, grade in judged.items() if grade > 0)
        negatives = tuple(Passage(texts[name]) for name, grade in judged.items() if grade <= 0)
        yield Question(collection.queries[query], positives, "trecqa-train", "", negatives)


def _evaluation_texts(collections: Path) -> tuple[set[str], set[str]]:
    """Normalized queries and relevant passages that must not be trained on.

    The abstracts of scifact-test are left: it shares its corpus with scifact-train, which has
    other claims.
    """
    queries = {
        normalized(row["text"])
        for name in ("scifact-test", "qed-nq-dev")
        for _, row in json_objects(collections / name / "queries.jsonl")
    }
    trecqa = [row for _, row in json_objects(collections / "trecqa-wang" / "dev.jsonl")]
    queries |= {normalized(row["query"]) for row in trecqa}
    passages: Iterable[str] = [
        *(row["text"] for _, row in json_objects(collections / "qed-nq-dev" / "corpus.jsonl")),
        *(text for row in trecqa for text in row["candidates"]),
    ]
    return queries, {normalized(text) for text in passages}
