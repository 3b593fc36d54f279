"""First stage, reranking and the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from fake_reranker import FakeReranker

from bge_rerank_integrations.errors import (
    ConfigurationError,
    InputError,
    ScoringError,
)
from bge_rerank_integrations.evaluation import (
    Collection,
    Run,
    blend,
    bm25,
    fuse,
    read_beir,
    read_candidate_lists,
    rerank,
    summarize,
)


@pytest.fixture
def collection(folder: Path) -> Collection:
    return read_beir(folder)


def test_bm25_finds_what_shares_a_word_with_each_query(collection: Collection) -> None:
    run = bm25(collection, depth=2)
    assert {query: set(found) for query, found in run.order.items()} == {
        "q1": {"berlin", "bonn"},
        "q2": {"banana", "lemon"},
        "q3": set(),
    }
    assert run.seconds.keys() == collection.queries.keys()
    assert (run.pairs, run.tokens) == (0, 0)
    with pytest.raises(ConfigurationError, match="depth must be at least 1, got 0"):
        bm25(collection, depth=0)


def test_bm25_orders_as_the_published_baselines_do() -> None:
    """k1 = 0.9 and b = 0.4, as https://github.com/castorini/anserini has them for BEIR."""
    shapes = {
        f"{pandas} and {bears} of {length}": ({"panda": pandas, "bear": bears}, length)
        for length in (8, 16, 64)
        for pandas in (0, 1, 2, 4, 7)
        for bears in (0, 1)
        if pandas or bears
    }
    documents = {
        name: "panda " * counts["panda"]
        + "bear " * counts["bear"]
        + "bamboo " * (length - sum(counts.values()))
        for name, (counts, length) in shapes.items()
    }
    mean = sum(length for _, length in shapes.values()) / len(shapes)

    def score(name: str) -> float:
        """Lucene's BM25 of the query's two words."""
        counts, length = shapes[name]
        total = 0.0
        for word, count in counts.items():
            holding = sum(other[word] > 0 for other, _ in shapes.values())
            rarity = math.log(1 + (len(shapes) - holding + 0.5) / (holding + 0.5))
            total += rarity * count / (count + 0.9 * (0.6 + 0.4 * length / mean))
        return total

    collection = Collection("made up", {"q": "panda bear"}, documents, {"q": {"any": 1}})
    assert bm25(collection).order["q"] == sorted(shapes, key=score, reverse=True)


def test_bm25_finds_other_forms_of_a_word() -> None:
    documents = {"bread": "bread and butter", "ship": "the ship sails", "sea": "sailing the seas"}
    queries = {"q": "ships"}
    collection = Collection("ships", queries, documents, {"q": {"ship": 1}})
    assert bm25(collection, depth=1).order["q"] == ["ship"]


def test_candidate_lists_are_ordered_and_kept_whole(lists: Path) -> None:
    run = bm25(read_candidate_lists(lists), depth=1)
    assert run.order["1"][0] == "1/0"
    assert set(run.order["1"]) == {"1/0", "1/1", "1/2", "1/3"}
    assert list(run.order["4"]) == ["4/1", "4/0"]


def test_reranking_reorders_the_candidates_and_counts(collection: Collection) -> None:
    first_stage = Run("mine", {"q1": ["paris", "berlin"], "q2": ["lemon"], "q3": []})
    reranker = FakeReranker()
    run = rerank("fake", reranker, collection, first_stage)
    assert run.order == {"q1": ["berlin", "paris"], "q2": ["lemon"], "q3": []}
    # of the fake's logits 1, 0 and -1: the words that query and document share, less two
    assert run.scores == {
        "q1": [pytest.approx(0.7310586), 0.5],
        "q2": [pytest.approx(0.2689414)],
        "q3": [],
    }
    assert (run.name, run.pairs, run.tokens) == ("fake", 3, 3)
    assert run.seconds.keys() == collection.queries.keys()
    _, first, *_ = reranker.calls
    assert first.documents == (collection.documents["paris"], collection.documents["berlin"])
    assert first.top_n is None


class Refuses(FakeReranker):
    """Refuses one query."""

    def rerank(self, query: str, *given, **more):
        if query == "yellow banana":
            raise self.refusal
        return super().rerank(query, *given, **more)


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (InputError("not valid Unicode", 1), "cities: 'lemon': not valid Unicode"),
        (InputError("not valid Unicode"), "cities: query 'q2': not valid Unicode"),
        (ScoringError("broken", 0), "broken"),
    ],
)
def test_what_cannot_be_scored_is_named(
    collection: Collection, refusal: Exception, expected: str
) -> None:
    reranker = Refuses()
    reranker.refusal = refusal
    first_stage = Run("mine", {"q1": ["paris"], "q2": ["banana", "lemon"], "q3": []})
    with pytest.raises(type(refusal)) as caught:
        rerank("fake", reranker, collection, first_stage)
    assert str(caught.value) == expected


def test_progress_is_shown_on_request(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    first_stage = bm25(collection)
    rerank("fake", FakeReranker(), collection, first_stage)
    assert capsys.readouterr().err == ""
    rerank("fake", FakeReranker(), collection, first_stage, show_progress=True)
    assert "fake: 100%" in capsys.readouterr().err


def test_the_report_compares_every_two_runs(collection: Collection) -> None:
    worst = Run("worst", {"q1": ["paris"], "q2": ["lemon"], "q3": ["banana"]})
    best = Run(
        "best",
        {"q1": ["berlin", "bonn"], "q2": ["banana"], "q3": ["paris"]},
        {"q1": 0.001, "q2": 0.003, "q3": 0.002},
        pairs=4,
        tokens=40,
    )
    report = summarize(collection, [worst, best, replace(best, name="same")], top_n=[1])
    assert (report.collection, report.queries, report.documents) == ("cities", 3, 5)
    assert [list(row) for row in report.rows()] == [
        ["system", "nDCG@10", "MRR@10", "recall@1", "MAP", "ms/query", "95 %", "pairs", "tokens"],
        ["worst", "0.0000", "0.0000", "0.0000", "0.0000", "–", "–", "0", "0"],
        ["best", "1.0000", "1.0000", "0.8333", "1.0000", "2.0", "2.9", "4", "40"],
        ["same", "1.0000", "1.0000", "0.8333", "1.0000", "2.0", "2.9", "4", "40"],
    ]
    assert [list(row) for row in report.comparison_rows()] == [
        ["compared", "nDCG@10", "wins", "ties", "losses", "p"],
        ["best against worst", "+1.0000", "3", "0", "0", "0.250"],
        ["same against worst", "+1.0000", "3", "0", "0", "0.250"],
        ["same against best", "+0.0000", "0", "3", "0", "1.000"],
    ]
    read = json.loads(json.dumps(report.as_dict()))
    assert read["systems"][1]["values"]["recall@1"] == {"q1": 0.5, "q2": 1.0, "q3": 1.0}


def test_first_stages_are_fused_by_reciprocal_ranks() -> None:
    one = Run("one", {"q": ["a", "b", "c"]})
    other = Run("other", {"q": ["c", "d", "a"]})
    # 1/61 + 1/63, 1/62, 1/63 + 1/61, 1/62: equal sums keep the order in which they were met
    assert fuse([one, other]).order == {"q": ["a", "c", "b", "d"]}
    assert fuse([one, other], depth=1).order == {"q": ["a"]}
    assert fuse([one, Run("none", {})]).order == one.order


def test_a_blend_costs_what_the_reranker_costs() -> None:
    first = Run("first", {"q": ["a", "b", "c"]})
    run = Run("model", {"q": ["c", "b", "a"]}, {"q": 0.5}, 3, 30, {"q": [0.9, 0.5, 0.1]})
    blended = blend(run, first, 0.75)
    assert blended.order == {"q": ["a", "b", "c"]}
    assert (blended.seconds, blended.pairs, blended.tokens) == ({"q": 0.5}, 3, 30)


def test_the_curve_tells_what_fewer_candidates_would_give(collection: Collection) -> None:
    first = Run("first", {"q1": ["bonn", "paris", "berlin"], "q2": ["lemon", "banana"], "q3": []})
    run = Run("model", {"q1": ["berlin", "bonn", "paris"], "q2": ["banana", "lemon"], "q3": []})
    report = summarize(collection, [first, run], retrieval_weight=1.0)
    assert report.depths.keys() == {"model", "model, blended"}
    assert report.depths["model"] == {3: report.systems[1].means["nDCG@10"]}
    assert report.depths["model, blended"] == {3: report.systems[0].means["nDCG@10"]}
    many = Run("first", {"q1": [*"abcdef", "berlin"], "q2": [], "q3": []})
    better = Run("model", {"q1": ["berlin", *"abcdef"], "q2": [], "q3": []})
    curve = summarize(collection, [many, better]).depths["model"]
    assert curve.keys() == {5, 7}
    assert curve[5] == 0 < curve[7]


def test_the_report_tells_what_reranking_cannot_help(collection: Collection) -> None:
    candidates = {"q1": ["bonn", "paris", "berlin"], "q2": ["lemon", "banana"], "q3": ["paris"]}
    first = Run("first", candidates)
    run = Run("model", candidates, pairs=6, scores={"q1": [0.5] * 3}, truncated=4)
    assert summarize(collection, [first, run], top_n=[3]).notes == (
        "recall@3 cannot change: a query has 3 candidates at most",
        "model: the scores of each query are all equal, they say nothing",
        "model: the ends of 4 of 6 documents were not read (max_length, long_documents)",
    )
    fine = Run("model", candidates, pairs=6, scores={"q1": [0.5, 0.4, 0.3]}, truncated=3)
    assert summarize(collection, [first, fine], top_n=[2]).notes == ()


def test_candidates_in_the_rerankers_own_order_are_told_of() -> None:
    queries = {f"q{n}": "text" for n in range(5)}
    documents = {"a": "one", "b": "two"}
    relevance = {query: {"a": 1} for query in queries}
    collection = Collection("sorted", queries, documents, relevance)
    first = Run("first", {query: ["b", "a"] for query in queries})
    same, other = (
        Run("model", dict.fromkeys(queries, found)) for found in (["b", "a"], ["a", "b"])
    )
    told = summarize(collection, [first, same], top_n=[1]).notes
    assert told == ("model: the candidates came in this reranker's own order",)
    assert summarize(collection, [first, other], top_n=[1]).notes == ()
