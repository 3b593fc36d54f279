"""A small collection, written for the tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

CORPUS = [
    {"_id": "berlin", "title": "Berlin", "text": "The capital of Germany."},
    {"_id": "bonn", "title": "Bonn", "text": "Once the capital of West Germany, capital indeed."},
    {"_id": "paris", "title": "Paris", "text": "The capital of France."},
    {"_id": "banana", "title": "Banana", "text": "A yellow fruit."},
    {"_id": "lemon", "text": "A sour yellow fruit, yellow all over."},
]
QUERIES = [
    {"_id": "q1", "text": "capital of Germany"},
    {"_id": "q2", "text": "yellow banana"},
    {"_id": "q3", "text": "who knows"},
]
QRELS = [("q1", "berlin", 2), ("q1", "bonn", 1), ("q2", "banana", 1), ("q3", "paris", 1)]


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_qrels(path: Path, rows: Iterable[tuple[str, str, int]]) -> Path:
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in BEIR's layout."""
    folder = tmp_path / "cities"
    folder.mkdir()
    write_json_lines(folder / "corpus.jsonl", CORPUS)
    write_json_lines(folder / "queries.jsonl", QUERIES)
    write_qrels(folder / "qrels" / "test.tsv", QRELS)
    return folder


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A file of candidate lists, sorted by label as such files often are."""
    rows = [
        {
            "query": "capital of Germany",
            "candidates": ["Berlin, capital of Germany", "Bonn", "Banana", "Lemon"],
            "labels": [1, 0, 0, 0],
        },
        {"query": "fruit", "candidates": ["Banana", "Lemon"], "labels": [1, 1]},
        {"query": "fruit", "candidates": [], "labels": []},
        {"query": "yellow", "candidates": ["Lemon", "yellow, yellow"], "labels": [0, 1]},
    ]
    return write_json_lines(tmp_path / "lists.jsonl", rows)
