"""Questions and documents in three formats, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bge_rerank_integrations import InputError
from bge_rerank_integrations.tuning.data import read_data


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def test_flag_embeddings_lines_are_read(tmp_path: Path) -> None:
    rows = [
        {"query": "q1", "pos": ["a"], "neg": ["b", "c"]},
        {"query": "q2", "pos": ["b", "d"]},
    ]
    read = read_data(write_lines(tmp_path / "mine.jsonl", rows))
    assert list(read.queries.values()) == ["q1", "q2"]
    judged = [
        {read.documents[name]: grade for name, grade in grades.items()}
        for grades in read.relevance.values()
    ]
    assert judged == [{"a": 1, "b": 0, "c": 0}, {"b": 1, "d": 1}]
    assert sorted(read.documents.values()) == ["a", "b", "c", "d"]


def test_a_dataset_of_llama_index_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    given = {
        "queries": {"1": "q1"},
        "corpus": {"n1": "a", "n2": "b"},
        "relevant_docs": {"1": ["n2"]},
        # what EmbeddingQAFinetuneDataset.save_json writes beside them
        "mode": "text",
    }
    path.write_text(json.dumps(given), "utf-8")
    read = read_data(path)
    assert (read.queries, read.documents) == (given["queries"], given["corpus"])
    assert read.relevance == {"1": {"n2": 1}}


def test_a_folder_without_judgments_is_read_for_a_teacher(tmp_path: Path) -> None:
    write_lines(tmp_path / "queries.jsonl", [{"_id": "1", "text": "q1"}])
    write_lines(tmp_path / "corpus.jsonl", [{"_id": "n", "title": "T", "text": "a"}])
    read = read_data(tmp_path, judged=False)
    assert (read.queries, read.documents, read.relevance) == ({"1": "q1"}, {"n": "T a"}, {})
    with pytest.raises(InputError, match="expected qrels"):
        read_data(tmp_path)
    (tmp_path / "qrels.tsv").write_text("1\tn\t1\n", "utf-8")
    assert read_data(tmp_path, judged=False).relevance == {"1": {"n": 1}}


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "there is no document in corpus.jsonl"),
        ([{"_id": "m", "text": "a"}], "query '1': relevant document 'n' is not in corpus.jsonl"),
    ],
)
def test_a_folder_whose_corpus_lacks_documents_is_refused(
    tmp_path: Path, corpus: list[Any], message: str
) -> None:
    write_lines(tmp_path / "queries.jsonl", [{"_id": "1", "text": "q1"}])
    write_lines(tmp_path / "corpus.jsonl", corpus)
    # a document that was judged not to answer may be missing
    (tmp_path / "qrels.tsv").write_text("1\tz\t0\n1\tn\t1\n", "utf-8")
    with pytest.raises(InputError, match=message):
        read_data(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "q", "pos": []}], r"mine\.jsonl:1: 'pos' must have at least one text"),
        ([{"query": "q", "pos": "a"}], r"mine\.jsonl:1: 'pos' must be a list of strings"),
        ([{"query": "q"}], r"mine\.jsonl:1: 'pos' must be a list of strings"),
        ([{"query": "q", "pos": ["a"], "neg": [1]}], "'neg' must be a list of strings"),
        ([{"query": 5, "pos": ["a"]}], "'query' must be a string, got int"),
        ([], "there is no question in this file"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_data(write_lines(tmp_path / "mine.jsonl", rows))


GOOD = {"queries": {"1": "q"}, "corpus": {"n": "a"}, "relevant_docs": {"1": ["n"]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevant_docs": {}}, "query '1' has no relevant_docs"),
        ({"relevant_docs": {"1": ["m"]}}, r"relevant_docs\['1'\]: 'm' is not in the corpus"),
        ({"corpus": {"n": 5}}, r"corpus\['n'\] must be a string"),
        ({"queries": {}}, "there is no question in this file"),
        ({"queries": None}, "expected the objects queries, corpus and relevant_docs"),
    ],
)
def test_a_wrong_dataset_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(GOOD | change), "utf-8")
    with pytest.raises(InputError, match=message):
        read_data(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.csv", "x"), ("a.json", "{"), ("missing.json", None)):
        if content is not None:
            (tmp_path / name).write_text(content, "utf-8")
        with pytest.raises(InputError, match=name):
            read_data(tmp_path / name)
