"""Reading collections and run files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bge_rerank_integrations.errors import ConfigurationError, InputError
from bge_rerank_integrations.evaluation import (
    Collection,
    read_beir,
    read_candidate_lists,
    read_run,
    text_only,
)
from evaluation.conftest import CORPUS, QRELS, write_json_lines, write_qrels


def test_a_folder_is_read_with_titles(folder: Path) -> None:
    collection = read_beir(folder)
    assert collection.name == "cities"
    assert list(collection.queries) == ["q1", "q2", "q3"]
    assert collection.documents["berlin"] == "Berlin The capital of Germany."
    assert collection.documents["lemon"] == "A sour yellow fruit, yellow all over."
    assert collection.relevance["q1"] == {"berlin": 2, "bonn": 1}
    assert collection.lists is None
    assert collection.notes == ()


def test_texts_without_their_titles(folder: Path) -> None:
    assert read_beir(folder, form=text_only).documents["berlin"] == "The capital of Germany."


def test_another_corpus_file(folder: Path) -> None:
    write_json_lines(folder / "small.jsonl", CORPUS[:1])
    collection = read_beir(folder, "small.jsonl")
    assert list(collection.documents) == ["berlin"]
    assert collection.notes == (
        "3 relevant documents are not in small.jsonl: they count as not found",
    )


def test_judgements_in_the_folder_itself_also_without_a_header(folder: Path) -> None:
    lines = (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]
    (folder / "qrels" / "test.tsv").unlink()
    (folder / "qrels.tsv").write_text("\ufeff" + "\r\n".join(lines) + "\n\n", encoding="utf-8")
    assert read_beir(folder).relevance["q1"] == {"berlin": 2, "bonn": 1}


def test_queries_without_a_relevant_document_are_left_out(folder: Path) -> None:
    write_qrels(folder / "qrels" / "test.tsv", [*QRELS[:3], ("q3", "paris", 0)])
    collection = read_beir(folder)
    assert list(collection.queries) == list(collection.relevance) == ["q1", "q2"]
    assert collection.notes == ("1 judged queries have no relevant document: left out",)


def test_only_relevant_documents_are_missed_in_the_corpus(folder: Path) -> None:
    absent = [("q1", "rome", 1), ("q1", "oslo", 0), ("q2", "lima", 0), ("q2", "kiel", -1)]
    write_qrels(folder / "qrels" / "test.tsv", [*QRELS, *absent])
    assert read_beir(folder).notes == (
        "1 relevant documents are not in corpus.jsonl: they count as not found",
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("corpus.jsonl", '{"_id": "a", "text": "b"}\n\n{', "corpus.jsonl:3: not JSON: Expecting"),
        ("corpus.jsonl", "[]", "corpus.jsonl:1: expected a JSON object, got list"),
        ("corpus.jsonl", '{"_id": 1, "text": ""}', ":1: '_id' must be a string, got int"),
        ("corpus.jsonl", '{"_id": "a"}', ":1: 'text' must be a string, got nothing"),
        ("queries.jsonl", '{"_id": "a", "text": "b"}\n' * 2, ":2: _id 'a' was there before"),
        ("queries.jsonl", "", "test.tsv:2: query 'q1' is not in queries.jsonl"),
        ("qrels/test.tsv", "q1\tberlin", ":1: expected query-id, corpus-id and score with tabs"),
        ("qrels/test.tsv", "q1\tberlin\tyes", ":1: score must be a whole number, got 'yes'"),
        ("qrels/test.tsv", "q1\tberlin\t0", "no query has a relevant document"),
    ],
)
def test_mistakes_are_named_by_file_and_line(
    folder: Path, name: str, text: str, expected: str
) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_beir(folder)
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)


def test_what_is_not_utf8_is_named_by_its_line(folder: Path) -> None:
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "a", "text": "b"}\n"\xff"')
    with pytest.raises(InputError, match=r"corpus\.jsonl:2: not UTF-8: invalid start byte, byte 2"):
        read_beir(folder)


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"other\.jsonl: No such file"):
        read_beir(folder, "other.jsonl")
    with pytest.raises(InputError, match=r"expected qrels/test\.tsv or qrels\.tsv in this folder"):
        read_beir(folder.parent)


def test_candidate_lists_that_no_order_improves_are_left_out(lists: Path) -> None:
    collection = read_candidate_lists(lists)
    assert collection.queries == {"1": "capital of Germany", "4": "yellow"}
    assert collection.relevance["1"] == {"1/0": 1, "1/1": 0, "1/2": 0, "1/3": 0}
    assert collection.documents["4/1"] == "yellow, yellow"
    assert collection.notes == ("2 lists are all relevant or all not: left out",)


def test_the_candidates_order_does_not_tell_their_labels(tmp_path: Path) -> None:
    row = {"query": "q", "candidates": list("abcdefgh"), "labels": [1] * 4 + [0] * 4}
    collection = read_candidate_lists(write_json_lines(tmp_path / "a.jsonl", [row] * 20))
    assert collection.lists is not None
    firsts = [collection.relevance[query][names[0]] for query, names in collection.lists.items()]
    assert 4 < sum(firsts) < 16
    assert all(len(set(names)) == 8 for names in collection.lists.values())


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"candidates": [], "labels": []}, "'query' must be a string, got nothing"),
        ({"query": "q", "candidates": [1], "labels": [1]}, "'candidates' must be a list of str"),
        ({"query": "q", "candidates": ["a"], "labels": ["1"]}, "'labels' must be a list of whole"),
        ({"query": "q", "candidates": ["a"], "labels": []}, "1 candidates have 0 labels"),
    ],
)
def test_wrong_candidate_lists_are_named(tmp_path: Path, row: dict, expected: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + json.dumps(row), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_candidate_lists(path)
    assert f"{path}:2: {expected}" in str(caught.value)


def test_lists_without_any_choice_are_an_error(tmp_path: Path) -> None:
    path = write_json_lines(
        tmp_path / "a.jsonl", [{"query": "q", "candidates": ["a"], "labels": [1]}]
    )
    with pytest.raises(InputError, match="no list has both"):
        read_candidate_lists(path)


def test_a_run_file_is_ordered_by_score_and_cut(folder: Path) -> None:
    path = folder / "dense.run"
    path.write_text(
        "q1 Q0 paris 1 0.5 dense\n"
        "q1 Q0 berlin 2 0.9 dense\n"
        "q1 Q0 bonn 3 0.5 dense\n"
        "other Q0 nowhere 1 1 dense\n"
        "q2\tQ0\tlemon\t1\t-1e3\tdense\n"
    )
    run = read_run(path, read_beir(folder), depth=2)
    assert run.name == "dense.run"
    assert run.order == {"q1": ["berlin", "paris"], "q2": ["lemon"], "q3": []}
    assert run.seconds == {}


WANTED = "expected query, Q0, document, rank, score (a number)"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("q1 Q0 paris 1 0.5", f"{WANTED} and tag, got 'q1 Q0 paris 1 0.5'"),
        ("q1 Q0 nowhere 1 0.5 x", "document 'nowhere' is not in the corpus"),
        ("q1 Q0 bonn 1 0.5 x", "document 'bonn' was there before for 'q1'"),
        ("q1 Q0 paris 1 high x", f"{WANTED} and tag, got 'q1 Q0 paris 1 high x'"),
        ("q1 Q0 paris 1 nan x", f"{WANTED} and tag, got 'q1 Q0 paris 1 nan x'"),
    ],
)
def test_wrong_lines_of_a_run_are_named(folder: Path, line: str, expected: str) -> None:
    path = folder / "a.run"
    path.write_text(f"q1 Q0 bonn 1 1.0 x\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_run(path, read_beir(folder))
    assert str(caught.value) == f"{path}:2: {expected}"


def test_a_run_of_other_queries_is_an_error(folder: Path) -> None:
    path = folder / "a.run"
    path.write_text("x Q0 bonn 1 1.0 x\n")
    with pytest.raises(InputError, match="no line answers"):
        read_run(path, read_beir(folder))


def test_a_sample_is_the_same_every_time(folder: Path) -> None:
    collection = read_beir(folder)
    sample = collection.sample(2)
    assert sample == collection.sample(2)
    assert list(sample.queries) == list(sample.relevance)
    assert len(sample.queries) == 2
    assert sample.documents == collection.documents
    assert sample.notes == ("a sample of 2 of 3 queries",)
    assert collection.sample(3) is collection
    chosen = collection.only({"q3", "q1"})
    assert list(chosen.queries) == list(chosen.relevance) == ["q1", "q3"]
    assert (chosen.documents, chosen.notes) == (collection.documents, ())
    with pytest.raises(ConfigurationError, match="max_queries must be at least 1, got 0"):
        collection.sample(0)


def test_a_sample_is_drawn_from_everywhere() -> None:
    queries = {str(number): f"query {number}" for number in range(1000)}
    collection = Collection("c", queries, {"d": "text"}, {query: {"d": 1} for query in queries})
    drawn = [int(query) for query in collection.sample(100).queries]
    assert drawn == sorted(set(drawn))
    assert drawn == [int(query) for query in collection.sample(100).queries]
    # of each fifth of the queries 20 are expected
    assert all(10 <= count <= 30 for count in Counter(n // 200 for n in drawn).values())
    assert len({n // 200 for n in drawn}) == 5
