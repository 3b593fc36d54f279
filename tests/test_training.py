"""Training the built-in model: what a run depends on, with a tiny model and made-up questions."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SMALL, save_checkpoint
from fake_reranker import FakeReranker
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

pytest.importorskip("Stemmer", reason="PyStemmer comes with the extra 'eval'")
pytest.importorskip("training", reason="the recipe is in the repository only")

from bge_rerank_integrations.evaluation import Collection, Run, read_beir, text_only
from training.__main__ import FIRST_STAGE, SECOND_STAGE
from training.calibrate import score
from training.evaluate import evaluate_corpus, evaluate_lists, score_figures
from training.export import average
from training.lists import GENERAL, SCIENCE
from training.negatives import mine
from training.packing import PairEncoder
from training.python_docs import python_docs
from training.records import Data, Passage, Question, load
from training.seen import (
    ALL,
    NONE,
    SOME,
    UNRELATED,
    difference,
    qed_counts,
    question_counts,
    scifact_counts,
    split,
)
from training.train import Settings, learning_rate, questions_of_steps, train

FRUIT = ("apple", "pear", "plum", "fig", "lime", "kiwi", "date", "mango")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "brown")


@pytest.fixture(scope="module")
def data() -> Data:
    passages = [
        Passage(f"the {fruit} is {colour}. it grows here.", title=fruit)
        for fruit, colour in zip(FRUIT, COLOURS, strict=True)
    ]
    questions = [
        Question(f"colour of the {fruit}", (passage,), "scifact-train", "fruit")
        for fruit, passage in zip(FRUIT, passages, strict=True)
    ]
    return Data(questions, {"fruit": passages})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint(BertModel(BertConfig(**SMALL)), folder)
    return folder


def both_stages(data: Data, base: Path, work: Path, seed: int) -> torch.Tensor:
    """Train in two stages, average, and score every passage for every question."""
    members = list(enumerate(data.questions))
    start = base
    stages = (
        Settings(GENERAL, 6, 3, learning_rate=1e-3, seed=seed, checkpoint_every=2),
        Settings(SCIENCE, 5, 2, negatives=4, learning_rate=1e-3, seed=seed + 1, checkpoint_every=2),
    )
    for number, settings in enumerate(stages):
        out = work / str(number)
        checkpoints = train(
            data, members, mine(data), start, base / "tokenizer.json", out, settings
        )
        start = checkpoints[-1]
    encoder = PairEncoder(Tokenizer.from_file(str(base / "tokenizer.json")))
    model = average(checkpoints)
    texts = [passage.text for passage in data.pools["fruit"]]
    return torch.stack([score(model, encoder, q.query, texts) for q in data.questions])


def test_the_same_seed_gives_the_same_scores(data: Data, base: Path, tmp_path: Path) -> None:
    first = both_stages(data, base, tmp_path / "first", seed=1)
    random.random(), torch.rand(3)  # a run depends on no generator but its own
    second = both_stages(data, base, tmp_path / "second", seed=1)
    other = both_stages(data, base, tmp_path / "other", seed=7)
    torch.testing.assert_close(first, second, rtol=0.0, atol=1e-3)
    assert (first - other).abs().max() > 0.1, "the scores do not depend on training"


def test_steps_decide_how_long_it_trains(data: Data, base: Path, tmp_path: Path) -> None:
    settings = Settings(steps=5, lists_per_step=2, checkpoint_every=2)
    members = list(enumerate(data.questions))
    checkpoints = train(
        data, members, mine(data), base, base / "tokenizer.json", tmp_path, settings
    )
    assert [folder.name for folder in checkpoints] == ["step-000002", "step-000004", "step-000005"]


@given(steps=st.integers(1, 3000), warmup_share=st.floats(0.01, 0.5))
def test_the_rate_rises_then_falls_and_is_never_zero(steps: int, warmup_share: float) -> None:
    settings = Settings(steps=steps, warmup_share=warmup_share)
    rates = [learning_rate(settings, step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= settings.learning_rate for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak <= math.ceil(warmup_share * steps)


def test_every_step_gets_its_lists(data: Data) -> None:
    members = list(enumerate(data.questions))
    chosen, again, other = (
        list(islice(questions_of_steps(members, Settings(lists_per_step=7, seed=seed)), 40))
        for seed in (1, 1, 2)
    )
    assert {len(step) for step in chosen} == {7}
    assert chosen == again != other


def test_the_stages_are_as_long_as_those_of_the_shipped_weights() -> None:
    pairs = [s.steps * s.lists_per_step * (1 + s.negatives) for s in (FIRST_STAGE, SECOND_STAGE)]
    # a few lists have fewer negatives than asked for
    assert pairs == pytest.approx([79_400, 18_600], rel=0.01)


def test_questions_about_python_have_answers() -> None:
    collection = python_docs()
    # a newer reference says some things in other words
    assert len(collection.queries) >= 40
    assert collection.queries.keys() == collection.relevance.keys()
    for judged in collection.relevance.values():
        assert 1 <= len(judged) <= 6
        assert judged.keys() <= collection.documents.keys()


def test_thresholds_and_calibration_follow_from_the_scores() -> None:
    names = [str(number) for number in range(40)]
    scores = [0.99] * 10 + [0.6] * 9 + [0.3] + [0.55] * 10 + [0.01] * 10
    relevance = {"q": dict.fromkeys(names[:20], 1)}
    collection = Collection("c", {"q": ""}, dict.fromkeys(names, ""), relevance)
    figures = score_figures(collection, Run("r", {"q": names}, scores={"q": scores}))
    assert figures == pytest.approx(
        {
            "calibration error": (10 * 0.01 + 9 * 0.4 + 0.7 + 10 * 0.55 + 10 * 0.01) / 40,
            "threshold that keeps 95 % of the relevant": 0.6,
            "share of candidates at that threshold": 19 / 40,
            "precision at score 0.5": 19 / 29,
            "recall at score 0.5": 19 / 20,
        }
    )


def test_a_depth_reranks_what_bm25_found_first() -> None:
    # BM25 likes the short one and passes over stop words, which the fake counts
    documents = {"short": "apple", "answer": "the apple of the long garden wall"}
    collection = Collection("c", {"q": "the apple of"}, documents, {"q": {"answer": 1}})
    figures = evaluate_corpus(FakeReranker(), collection, [1, 2])
    names = ("queries", "bm25", "reranked top 1", "reranked top 2")
    assert [figures[name] for name in names] == pytest.approx([1, 1 / math.log2(3), 0, 1])


def test_lists_have_the_thresholds_of_a_corpus() -> None:
    documents = {"a": "red apple", "b": "plum"}
    lists = {"q": ["b", "a"]}
    collection = Collection("c", {"q": "red apple"}, documents, {"q": {"a": 1, "b": 0}}, lists)
    figures = evaluate_lists(FakeReranker(), collection)
    assert (figures["lists"], figures["MAP"], figures["MRR@10"]) == (1, 1, 1)
    assert figures["threshold that keeps 95 % of the relevant"] == 0.5
    assert figures["recall at score 0.5"] == figures["precision at score 0.5"] == 1


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_beir(
    folder: Path, corpus: Mapping[str, str], judged: Mapping[str, tuple[str, str]]
) -> None:
    """A collection; `judged` has each query's text and the id of its relevant passage."""
    write_lines(folder / "corpus.jsonl", [{"_id": k, "text": v} for k, v in corpus.items()])
    queries = [{"_id": query, "text": text} for query, (text, _) in judged.items()]
    write_lines(folder / "queries.jsonl", queries)
    lines = [f"{query}\t{passage}\t1\n" for query, (_, passage) in judged.items()]
    (folder / "qrels.tsv").write_text("".join(lines), encoding="utf-8")


ABSTRACTS = {"a": "Tea has tannin.", "b": "Milk has fat.", "c": "Salt is a mineral.", "d": "Ice."}


@pytest.fixture
def collections(tmp_path: Path) -> Path:
    """Training and evaluation collections that overlap in every way that the filter knows."""
    claims = {
        "1": ("tannin is in tea", "a"),
        "2": ("is milk fat?", "b"),  # asked in scifact-test as well
    }
    write_beir(tmp_path / "scifact-train", ABSTRACTS, claims)
    test_claims = {
        "3": ("tannin is not in tea", "a"),
        "4": ("Is milk FAT", "b"),
        "5": ("salt is a mineral", "c"),
    }
    write_beir(tmp_path / "scifact-test", ABSTRACTS, test_claims)
    write_beir(tmp_path / "xquad-en", {"x": "Rome is in Italy."}, {"x": ("where is Rome", "x")})
    qed = {"q": "Oslo is in Norway.", "r": "Bern is in Switzerland."}
    write_beir(tmp_path / "qed-nq-dev", qed, {"q": ("where is Oslo", "q")})
    large = [{"_id": k, "text": v} for k, v in {**qed, "x": "Rome is in Italy."}.items()]
    write_lines(tmp_path / "qed-nq-dev" / "corpus_large.jsonl", large)
    trecqa = {"query": "who sings", "candidates": ["Birds sing.", "Fish swim."], "labels": [1, 0]}
    write_lines(tmp_path / "trecqa-wang" / "dev.jsonl", [trecqa])
    trained = {"query": "who runs", "candidates": ["Hares run.", "Snails creep."], "labels": [1, 0]}
    write_lines(tmp_path / "trecqa-wang" / "train.jsonl", [trained])
    return tmp_path


def loaded(collections: Path, *pairs: tuple[str, str]) -> Data:
    path = collections / "pairs.jsonl"
    write_lines(path, [{"query": q, "positive": p, "set": "dolly-open-qa"} for q, p in pairs])
    return load(path, collections)


def test_a_question_that_touches_no_evaluation_set_is_kept(collections: Path) -> None:
    data = loaded(collections, ("who barks", "Dogs bark."))
    assert {question.query for question in data.questions} == {
        "who barks",
        "tannin is in tea",
        "where is Rome",
        "who runs",
    }


@pytest.mark.parametrize(
    ("query", "positive"),
    [
        ("Where is OSLO?", "A city."),  # a question of qed-nq-dev
        ("tannin is not in tea!", "A claim."),  # of scifact-test
        ("who sings", "A bird."),  # of trecqa dev
        ("the capital of Norway", "oslo is in norway"),  # a passage of qed-nq-dev that answers
        ("a city of Europe", "Bern is in Switzerland."),  # one that no question of it names
        ("animals with wings", "BIRDS sing"),  # a candidate of trecqa dev
        ("animals with fins", "Fish swim."),  # a wrong one
    ],
)
def test_what_the_evaluation_sets_contain_is_not_trained_on(
    query: str, positive: str, collections: Path
) -> None:
    data = loaded(collections, (query, positive), ("who barks", "Dogs bark."))
    assert query not in {question.query for question in data.questions}
    assert [passage.text for passage in data.pools["dolly-open-qa"]] == ["Dogs bark."]


def test_a_question_with_one_forbidden_answer_among_others_is_left_out(collections: Path) -> None:
    data = loaded(collections, ("cities", "Cities have streets."), ("cities", "Oslo is in Norway."))
    assert "cities" not in {question.query for question in data.questions}


def test_abstracts_that_scifact_test_shares_are_trained_on_and_counted(collections: Path) -> None:
    """The filter lets them pass; the counts say how many, and the split tells the claims apart."""
    data = loaded(collections)
    assert question_counts(data) == {
        "all": 3,
        "held out": 0,
        "scifact-train": 1,
        "xquad-en": 1,
        "trecqa-train": 1,
    }
    test = read_beir(collections / "scifact-test", form=text_only)
    assert scifact_counts(test, data) == {
        "relevant abstracts": 3,
        "positives in training": 1,
        "possible negatives in training": 3,
        "claims": 3,
        "claims with a near twin in training": 1,
    }
    assert qed_counts(collections, data) == pytest.approx(
        {
            "passages, small corpus": 2,
            "trained on, small corpus": 0,
            "share trained on, small corpus": 0,
            "passages, large corpus": 3,
            "trained on, large corpus": 1,
            "share trained on, large corpus": 1 / 3,
        }
    )


def test_claims_are_split_by_what_was_trained_on() -> None:
    relevance = {
        "all": {"a": 1},
        "some": {"a": 1, "b": 1, "c": 0},
        "none": {"b": 1, "a": 0},
        "similar": {"b": 1},
    }
    queries = {"all": "x", "some": "y", "none": "salt is hard", "similar": "milk has much fat"}
    collection = Collection("c", queries, ABSTRACTS, relevance)
    assert split(collection, {"tea has tannin"}, ["milk has fat"]) == {
        ALL: ["all"],
        SOME: ["some"],
        NONE: ["none", "similar"],
        UNRELATED: ["none"],
    }


def test_a_difference_comes_with_the_interval_of_its_mean() -> None:
    names = [str(number) for number in range(100)]
    before, after = dict.fromkeys(names, 0.5), {n: 0.5 + 0.2 * (int(n) % 2) for n in names}
    figures = difference(before, after)
    assert figures["difference"] == pytest.approx(0.1)
    # the mean of 100 values of 0 and 0.2 has a standard error of 0.01
    assert figures["difference, low"] == pytest.approx(0.1 - 1.96 * 0.01, abs=0.003)
    assert figures["difference, high"] == pytest.approx(0.1 + 1.96 * 0.01, abs=0.003)
    assert figures["queries"] == 100
    assert (figures["bm25"], figures["reranked"]) == pytest.approx((0.5, 0.6))
