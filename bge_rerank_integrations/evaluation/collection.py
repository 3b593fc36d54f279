"""Queries, documents and relevance judgments, and how they are read from files.

Files are in BEIR's layout (github.com/beir-cellar/beir), or hold a list of candidates per query.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, InputError
from ..jsonl import Place, json_objects, read_lines, string

Relevance = Mapping[str, Mapping[str, int]]
"""Query id → document id → grade; above 0 is relevant."""

_QRELS = ("qrels/test.tsv", "qrels.tsv")


@dataclass(frozen=True)
class Collection:
    """Queries with judged documents.

    :param name: its name in reports.
    :param queries: query id → text; every one has a relevant document.
    :param documents: document id → text that is searched and reranked.
    :param relevance: grades of the queries' documents, and of no other query's.
    :param lists: query id → ids of its candidates in random order, for a collection with a list
        per query; None for a corpus that is searched.
    :param notes: what was left out in reading, for the report.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevance: Relevance
    lists: Mapping[str, Sequence[str]] | None = None
    notes: tuple[str, ...] = ()

    def sample(self, max_queries: int) -> Collection:
        """Draw at most ``max_queries`` queries at random, with a fixed seed.

        :raises ConfigurationError: for fewer than 1.
        """
        if max_queries < 1:
            raise ConfigurationError(f"max_queries must be at least 1, got {max_queries}")
        if max_queries >= len(self.queries):
            return self
        # not the first: collections are often sorted by subject
        drawn = set(random.Random(0).sample(list(self.queries), max_queries))
        note = f"a sample of {max_queries} of {len(self.queries)} queries"
        return replace(self.only(drawn), notes=(*self.notes, note))

    def only(self, queries: Container[str]) -> Collection:
        """Keep these queries, in their order, and all documents."""
        return replace(
            self,
            queries={query: text for query, text in self.queries.items() if query in queries},
            relevance={q: grades for q, grades in self.relevance.items() if q in queries},
        )


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """One line of the corpus.

    :param title: empty where there is none.
    """

    id: str
    title: str
    text: str


def titled(passage: CorpusPassage) -> str:
    """Title and text, as BEIR joins them."""
    return f"{passage.title} {passage.text}".strip()


def text_only(passage: CorpusPassage) -> str:
    """The text without its title."""
    return passage.text


def read_beir(
    folder: Path, corpus: str = "corpus.jsonl", form: Callable[[CorpusPassage], str] = titled
) -> Collection:
    """Read a folder with ``queries.jsonl``, ``qrels/test.tsv`` or ``qrels.tsv``, and a corpus.

    Queries without a relevant document are left out: no measure is defined for them.

    :param corpus: name of the corpus file in the folder.
    :param form: the text of a passage that is searched and reranked.
    :raises InputError: naming the file, and the line where one is wrong.
    """
    path = find_qrels(folder)
    if path is None:
        raise InputError(f"{folder}: expected {' or '.join(_QRELS)} in this folder, found neither")
    grades, places = _read_qrels(path)
    texts = _read_queries(folder / "queries.jsonl")
    documents = _read_corpus(folder / corpus, form)
    relevant = {query for query, judged in grades.items() if max(judged.values()) > 0}
    for query in grades:
        if query not in texts:
            raise InputError(f"{places[query]}: query {query!r} is not in queries.jsonl")
    if not relevant:
        raise InputError(f"{path}: no query has a relevant document")
    absent = sum(
        grade > 0 and document not in documents
        for query in relevant
        for document, grade in grades[query].items()
    )
    return Collection(
        name=folder.resolve().name,
        queries={query: text for query, text in texts.items() if query in relevant},
        documents=documents,
        relevance={query: grades[query] for query in texts if query in relevant},
        notes=_notes(
            (len(grades) - len(relevant), "judged queries have no relevant document: left out"),
            (absent, f"relevant documents are not in {corpus}: they count as not found"),
        ),
    )


def read_unjudged(folder: Path) -> Collection:
    """Read ``queries.jsonl`` and ``corpus.jsonl`` of a folder whose documents nobody has judged.

    :raises InputError: naming the file, and the line where one is wrong.
    """
    return Collection(
        name=folder.resolve().name,
        queries=_read_queries(folder / "queries.jsonl"),
        documents=_read_corpus(folder / "corpus.jsonl", titled),
        relevance={},
    )


def read_candidate_lists(path: Path) -> Collection:
    """Read JSON Lines with ``query``, ``candidates`` (texts) and ``labels`` (whole numbers).

    A query's id is its number in the file, a candidate's that and its position. Lists whose
    candidates are all relevant, or all not, are left out: no order is better than another (the
    "clean" lists of Rao et al., CIKM 2016).

    :raises InputError: naming the file, and the line where one is wrong.
    """
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    relevance: dict[str, dict[str, int]] = {}
    left_out = 0
    for number, (place, given) in enumerate(json_objects(path), start=1):
        query = str(number)
        text = string(given, "query", place)
        candidates, labels = _judged(given, place)
        if len({label > 0 for label in labels}) < 2:
            left_out += 1
            continue
        queries[query] = text
        names = [f"{query}/{position}" for position in range(len(candidates))]
        documents.update(zip(names, candidates, strict=True))
        relevance[query] = dict(zip(names, labels, strict=True))
    if not queries:
        raise InputError(f"{path}: no list has both relevant candidates and others")
    note = f"{left_out} lists are all relevant or all not: left out"
    return Collection(
        name=f"{path.resolve().parent.name}/{path.stem}",
        queries=queries,
        documents=documents,
        relevance=relevance,
        lists={query: _shuffled(judged, query) for query, judged in relevance.items()},
        notes=(note,) if left_out else (),
    )


def find_qrels(folder: Path) -> Path | None:
    """The file of a folder's judgments, if it has one."""
    return next((folder / name for name in _QRELS if (folder / name).is_file()), None)


def _read_qrels(path: Path) -> tuple[dict[str, dict[str, int]], dict[str, Place]]:
    """Grades, and the place where each query comes first."""
    grades: dict[str, dict[str, int]] = {}
    places: dict[str, Place] = {}
    for number, (place, text) in enumerate(read_lines(path)):
        fields = text.split("\t")
        if len(fields) != 3:
            raise InputError(
                f"{place}: expected query-id, corpus-id and score with tabs between, "
                f"got {len(fields)} fields"
            )
        query, document, grade = fields
        if number == 0 and grade == "score":
            continue
        places.setdefault(query, place)
        grades.setdefault(query, {})[document] = _grade(grade, place)
    return grades, places


def _grade(text: str, place: Place) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{place}: score must be a whole number, got {text!r}") from error


def _read_queries(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for place, given in json_objects(path):
        _add(texts, string(given, "_id", place), string(given, "text", place), place)
    return texts


def _read_corpus(path: Path, form: Callable[[CorpusPassage], str]) -> dict[str, str]:
    documents: dict[str, str] = {}
    for place, given in json_objects(path):
        title = string(given, "title", place, default="")
        passage = CorpusPassage(string(given, "_id", place), title, string(given, "text", place))
        _add(documents, passage.id, form(passage), place)
    return documents


def _add(texts: dict[str, str], name: str, text: str, place: Place) -> None:
    if name in texts:
        raise InputError(f"{place}: _id {name!r} was there before")
    texts[name] = text


def _notes(*counted: tuple[int, str]) -> tuple[str, ...]:
    return tuple(f"{count} {what}" for count, what in counted if count)


def _judged(given: dict[str, Any], place: Place) -> tuple[list[str], list[int]]:
    candidates, labels = given.get("candidates"), given.get("labels")
    if not (isinstance(candidates, list) and all(isinstance(text, str) for text in candidates)):
        raise InputError(f"{place}: 'candidates' must be a list of strings")
    if not (isinstance(labels, list) and all(isinstance(label, int) for label in labels)):
        raise InputError(f"{place}: 'labels' must be a list of whole numbers")
    if len(candidates) != len(labels):
        raise InputError(f"{place}: {len(candidates)} candidates have {len(labels)} labels")
    return candidates, labels


def _shuffled(names: Iterable[str], query: str) -> list[str]:
    # such files are often sorted by label, and ties keep the input order
    shuffled = list(names)
    random.Random(query).shuffle(shuffled)
    return shuffled
