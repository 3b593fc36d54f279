"""Making the built-in model: what is trained on, what is not, and one model for one seed."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SMALL, save_checkpoint
from fake_reranker import FakeReranker
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

pytest.importorskip("Stemmer", reason="PyStemmer comes with the extra 'eval'")
pytest.importorskip("training", reason="the recipe is in the repository only")

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.evaluation import Collection, Run
from training.evaluate import evaluate_corpus, evaluate_lists, requests, score_figures, unseen
from training.lists import NEGATIVES, ListSampler
from training.negatives import mine
from training.overlap import counts
from training.python_docs import python_docs
from training.records import (
    Data,
    Passage,
    Question,
    as_collection,
    is_reserved,
    load,
    with_pools,
)
from training.requests import (
    KEYWORDS,
    SENTENCE,
    TOPIC,
    WINDOWS,
    made_up,
    sentence_windows,
)
from training.teacher import MIDDLE, SCALE, BiEncoder
from training.texts import Twins, normalized
from training.tuned import docstrings

FRUIT = ("apple", "pear", "plum", "fig", "lime", "kiwi", "date", "mango")
COLORS = ("red", "green", "blue", "yellow", "white", "black", "pink", "brown")


def other_words(prefix: str) -> str:
    """A sentence that no other passage resembles."""
    return " ".join(f"{prefix}{number}" for number in range(8))


@pytest.fixture(scope="module")
def data() -> Data:
    passages = [
        Passage(
            f"The {fruit} is {color}. {other_words(fruit)}. It was brought from {color} hills by "
            f"traders. {other_words(color)}.",
            heading=f"Where do a {fruit} and its tree grow best?",
        )
        for fruit, color in zip(FRUIT, COLORS, strict=True)
    ]
    return with_pools(
        [
            Question(f"color of the {fruit}", (passage,), "texfaq", "fruit")
            for fruit, passage in zip(FRUIT, passages, strict=True)
        ]
    )


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


def test_requests_are_made_of_the_words_of_a_passage(data: Data) -> None:
    made = made_up(data, seed=1)
    by_kind = {kind: [one for one in made if one.source == kind] for kind in (TOPIC, KEYWORDS)}
    assert {len(of_kind) for of_kind in by_kind.values()} == {len(FRUIT)}
    for one in by_kind[KEYWORDS]:
        (passage,) = one.positives
        words = normalized(f"{passage.title} {passage.text}").split()
        assert 2 <= len(one.query.split()) <= 4
        assert set(one.query.split()) <= set(words)
        # rare words: the name of the fruit is in every request for it
        assert any(fruit in one.query.split() for fruit in FRUIT)
    for one in by_kind[TOPIC]:
        assert "?" not in one.query
    assert made == made_up(data, seed=1) != made_up(data, seed=2)


def test_a_sentence_is_asked_for_in_the_passage_without_it(data: Data) -> None:
    asked = [one for one in made_up(data, seed=1) if one.source == SENTENCE]
    assert len(asked) == len(FRUIT)
    for one in asked:
        (rest,) = one.positives
        whole = next(p for p in data.pools["fruit"] if one.query in p.text)
        assert one.query not in rest.text
        assert len(rest.text) < len(whole.text)


def test_windows_of_a_section_are_told_by_the_sentence_that_answers() -> None:
    sentences = ["Tea is a drink.", "It has tannin.", "Milk is added.", "Sugar is added too."]
    questions = [
        Question("what is in tea?", (Passage("It has tannin."),), "selqa-dev", "selqa-dev"),
        Question(
            "what is in tea?", (Passage(" ".join(sentences)),), "selqa-dev-section", "wikipedia"
        ),
    ]
    (made,) = sentence_windows(with_pools(questions))
    assert made.source == WINDOWS
    assert [p.text for p in made.positives] == [
        "Tea is a drink. It has tannin.",
        "It has tannin. Milk is added.",
    ]
    assert [p.text for p in made.judged_negatives] == [
        "Tea is a drink.",
        "Milk is added. Sugar is added too.",
    ]


def test_lists_have_one_answer_first_and_no_answer_after_it(data: Data) -> None:
    sampler = ListSampler(data, mine(data), seed=1)
    lists = sampler.draw({"texfaq": 3 * len(FRUIT) + 2})
    assert len(lists) == 3 * len(FRUIT) + 2
    for one in lists:
        assert one.labels == (1.0,) + (0.0,) * NEGATIVES
        fruit = one.query.split()[-1]
        assert fruit in one.documents[0]
        assert not any(re.search(rf"\b{fruit}\b", text) for text in one.documents[1:])
    again = ListSampler(data, mine(data), seed=1).draw({"texfaq": 3 * len(FRUIT) + 2})
    assert lists == again


def test_a_list_never_shows_the_question_as_the_title_of_its_answer(data: Data) -> None:
    asked = with_pools(
        [replace(q, query=q.positives[0].heading, source="texfaq") for q in data.questions]
    )
    lists = ListSampler(asked, mine(asked), seed=1).draw({"texfaq": 20 * len(FRUIT)})
    assert not any(one.query in one.documents[0] for one in lists)
    # other passages' titles are shown, alone and before their text
    shown = [text for one in lists for text in one.documents[1:]]
    headings = {p.heading for p in data.pools["fruit"]}
    assert any(text in headings for text in shown)
    assert any(text.startswith("Where") and "brought" in text for text in shown)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint(BertModel(BertConfig(**SMALL | {"max_position_embeddings": 512})), folder)
    return folder


FRUITS_IN_COLORS = [
    {"query": f"{color} {fruit}", "positive": f"The {fruit} is {color}.", "set": "quac"}
    for fruit in FRUIT
    for color in COLORS[:5]
]


def logits_of(folder: Path) -> torch.Tensor:
    with RerankEngine(str(folder), normalize=False, dtype="float32", device="cpu") as engine:
        documents = [row["positive"] for row in FRUITS_IN_COLORS]
        return torch.tensor(engine.score("green fig", documents))


@pytest.mark.filterwarnings("default")
def test_the_recipe_gives_one_model_for_one_seed(
    collections: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="it comes with the extra 'tune'")
    from training import __main__ as recipe

    write_lines(collections / "pairs.jsonl", FRUITS_IN_COLORS)
    monkeypatch.setattr(recipe, "MIX", {"quac": 24})
    for stage in ("TAUGHT", "JUDGED"):
        settings = replace(getattr(recipe, stage), lists_per_step=4, learning_rate=1e-3)
        monkeypatch.setattr(recipe, stage, settings)
    logits = []
    for name in ("first", "second"):
        random.random(), torch.rand(3)  # a run depends on no generator but its own
        command = ["training", "--pairs", str(collections / "pairs.jsonl")]
        command += ["--collections", str(collections), "--base", str(base)]
        command += ["--work", str(tmp_path / f"{name}-work"), "--out", str(tmp_path / name)]
        monkeypatch.setattr("sys.argv", command)
        recipe.main()
        logits.append(logits_of(tmp_path / name))
    torch.testing.assert_close(*logits, rtol=0.0, atol=1e-3)
    assert logits[0].std() > 1e-3
    # the head has scale and shift: all logits are moved alike
    plain = logits_of(tmp_path / "first-work" / "trained")
    told_apart = plain.diff().abs() > 0.1
    assert told_apart.any()
    slopes = (logits[0].diff() / plain.diff())[told_apart]
    assert slopes.tolist() == pytest.approx([slopes.mean().item()] * len(slopes), rel=0.1)


@pytest.mark.filterwarnings("default")
def test_the_stage_of_chunks_runs_from_lists_to_weights(
    collections: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="it comes with the extra 'tune'")
    from training import __main__ as recipe
    from training import chunked, manuals

    write_lines(collections / "pairs.jsonl", FRUITS_IN_COLORS)
    asked = [{"_id": "m", "text": "yellow plum"}]
    write_lines(collections / "manuals-dev" / "queries.jsonl", asked)
    rows = [{"_id": str(n), "text": f"Satz {n}"} for n in range(5)]
    write_lines(collections / "xquad-de" / "corpus.jsonl", rows)
    for packages in (manuals.PACKAGES, chunked.FOREIGN):
        packages.clear()
    page = tmp_path / "tea-doc" / "tea.html"
    page.parent.mkdir()
    paragraphs = "".join(
        f"<h2>how {color} tea is made</h2><p>{other_words(color)} {' '.join(COLORS * 8)}</p>"
        for color in COLORS
    )
    page.write_text(f"<title>Tea</title>{paragraphs}", "utf-8")
    manuals.PACKAGES["tea-doc"] = "."
    monkeypatch.setattr(chunked, "MIX", {"quac": 24, manuals.MANUALS: 6})
    # five steps from a random encoder rank too badly to be calibrated, which the test above does
    monkeypatch.setattr(chunked, "calibrate", lambda *_: (1.0, 0.0))
    start = tmp_path / "start"
    recipe.new_head(base, start)
    command = ["training.chunked", "--pairs", str(collections / "pairs.jsonl")]
    command += ["--collections", str(collections), "--manuals", str(tmp_path)]
    command += ["--teacher", str(base), "--base", str(start)]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", command)
    chunked.main()
    lists = [one for one, _ in chunked.read_judged(tmp_path / "work" / "judged.jsonl")]
    assert len(lists) > 6
    # a question of manuals-dev is not trained on
    assert "yellow plum" not in {one.asked for one in lists}
    assert any("tea" in one.asked for one in lists)
    assert (logits_of(tmp_path / "out") - logits_of(start)).abs().max() > 1e-4


def test_the_base_teaches_what_lies_near(base: Path) -> None:
    pairs = [("a green fig", "a green fig"), ("tea", "milk"), ("tea", "some tea"), ("tea", "ice")]
    logits = BiEncoder(base).score_pairs(iter(pairs))
    assert logits[0] == pytest.approx(SCALE * (1 - MIDDLE), abs=0.1)
    reference = SentenceTransformer(str(base), device="cpu", local_files_only=True)
    sides = (
        reference.encode([pair[side] for pair in pairs], normalize_embeddings=True)
        for side in (0, 1)
    )
    cosines = torch.from_numpy(math.prod(sides).sum(1))
    assert logits == pytest.approx((SCALE * (cosines - MIDDLE)).tolist(), abs=0.1)


def test_docstrings_are_questions_with_the_text_that_follows() -> None:
    answers = docstrings()
    text = answers["Serialize ``obj`` to a JSON formatted ``str``."]
    assert text.startswith("json.dumps\nIf ``skipkeys`` is true")
    assert len(answers) == len(set(answers.values())) > 500


ABSTRACTS = {"a": "Tea has tannin.", "b": "Milk has fat.", "c": "Salt is a mineral.", "d": "Ice."}


@pytest.fixture
def collections(tmp_path: Path) -> Path:
    """Training and evaluation collections that overlap in every way that the filter knows."""
    claims = {
        "1": ("tannin is in tea", "a"),
        "2": ("is milk fat?", "b"),  # asked in scifact-test as well
        "6": ("the melting point of ice", "d"),
    }
    write_beir(tmp_path / "scifact-train", ABSTRACTS, claims)
    test_claims = {
        "3": ("tannin is not in tea", "a"),
        "4": ("Is milk FAT", "b"),
        "5": ("salt is a mineral", "c"),
    }
    write_beir(tmp_path / "scifact-test", ABSTRACTS, test_claims)
    write_beir(tmp_path / "vaswani", ABSTRACTS, {"7": ("ice crystals in salt", "a")})
    qed = {"q": "Oslo is in Norway.", "r": "Bern is in Switzerland."}
    write_beir(tmp_path / "qed-nq-dev", qed, {"q": ("where is Oslo", "q")})
    large = [{"_id": k, "text": v} for k, v in {**qed, "x": "Rome is in Italy."}.items()]
    write_lines(tmp_path / "qed-nq-dev" / "corpus_large.jsonl", large)
    trecqa = {"query": "who sings", "candidates": ["Birds sing.", "Fish swim."], "labels": [1, 0]}
    write_lines(tmp_path / "trecqa-wang" / "dev.jsonl", [trecqa])
    trained = {"query": "who runs", "candidates": ["Hares run.", "Snails creep."], "labels": [1, 0]}
    write_lines(tmp_path / "trecqa-wang" / "train.jsonl", [trained])
    return tmp_path


def loaded(collections: Path, *pairs: tuple[str, str]) -> tuple[Data, Data]:
    path = collections / "pairs.jsonl"
    write_lines(path, [{"query": q, "positive": p, "set": "dolly-open-qa"} for q, p in pairs])
    return load(path, collections)


def texts(data: Data) -> set[str]:
    """All that can be in a list."""
    return {
        passage.text
        for passage in [
            *(passage for pool in data.pools.values() for passage in pool),
            *(p for q in data.questions for p in (*q.positives, *q.judged_negatives)),
        ]
    }


PAIRS = [(f"who has number {n}", f"The holder of {n} is known.") for n in range(30)]


def test_what_is_trained_on_and_what_is_reserved_share_no_passage(collections: Path) -> None:
    training, reserved = loaded(collections, *PAIRS)
    assert {q.query for q in training.questions} | {q.query for q in reserved.questions} >= {
        query for query, _ in PAIRS
    }
    assert 5 < len(reserved.questions) < 15
    assert not texts(training) & texts(reserved)
    assert all(is_reserved(question) for question in reserved.questions)


def test_a_question_with_passages_of_both_parts_is_in_neither(collections: Path) -> None:
    training, reserved = loaded(collections, *PAIRS)
    first, second = training.questions[0], reserved.questions[0]
    both = (
        ("who has any number", first.positives[0].text),
        (
            "who has any number",
            second.positives[0].text,
        ),
    )
    parts = loaded(collections, *PAIRS, *both)
    assert not any(q.query == "who has any number" for data in parts for q in data.questions)


def test_sections_are_reserved_by_article(collections: Path) -> None:
    rows = [
        {
            "query": f"question {n}",
            "positive": f"sentence {n}",
            "set": "selqa-dev",
            "group": str(n % 4),
        }
        for n in range(40)
    ]
    write_lines(collections / "pairs.jsonl", rows)
    training, reserved = load(collections / "pairs.jsonl", collections)
    groups = [
        {p.group for q in data.questions if q.source == "selqa-dev" for p in q.positives}
        for data in (training, reserved)
    ]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("query", "positive"),
    [
        ("Where is OSLO?", "A city."),  # a question of qed-nq-dev
        ("tannin is certainly not in tea!", "A claim."),  # nearly one of scifact-test
        ("Salt is a mineral, too", "Another claim."),  # another
        ("who sings", "A bird."),  # of trecqa dev
        ("ice crystals in the salt", "An ice."),  # of vaswani
        ("the capital of Norway", "oslo is in norway"),  # a passage of qed-nq-dev that answers
        ("a city of Europe", "Bern is in Switzerland."),  # one that no question of it names
        ("animals with wings", "BIRDS sing"),  # a candidate of trecqa dev
        ("animals with fins", "Fish swim."),  # a wrong one
        ("what is a mineral", "Salt is a mineral."),  # relevant in scifact-test
    ],
)
def test_what_the_evaluation_sets_contain_is_not_trained_on(
    query: str, positive: str, collections: Path
) -> None:
    for data in loaded(collections, (query, positive), *PAIRS):
        assert query not in {question.query for question in data.questions}
        assert positive not in texts(data)


def test_judged_passages_are_no_negatives_either(collections: Path) -> None:
    rows = [
        {
            "query": "what swims", "positive": "Ducks do.", "set": "trec",
            "negatives": ["Fish swim.", "Stones sink."],
        }
    ]  # fmt: skip
    write_lines(collections / "pairs.jsonl", rows)
    parts = load(collections / "pairs.jsonl", collections)
    (question,) = [q for data in parts for q in data.questions if q.query == "what swims"]
    assert [passage.text for passage in question.judged_negatives] == ["Stones sink."]


def test_claims_about_abstracts_that_scifact_test_judges_are_left_out(collections: Path) -> None:
    parts = loaded(collections)
    claims = {q.query for data in parts for q in data.questions if q.source == "scifact-train"}
    # "tannin is in tea" is about a judged abstract, "is milk fat?" is asked in both
    assert claims == {"the melting point of ice"}
    # and the corpus, which is that of scifact-test, is no pool
    assert not any("Tea has tannin." in texts(data) for data in parts)


def test_whole_sets_are_left_out(collections: Path) -> None:
    rows = [{"query": "which beer", "positive": "A bitter one.", "set": "stackexchange-beer"}]
    write_lines(collections / "pairs.jsonl", rows)
    parts = load(collections / "pairs.jsonl", collections)
    assert not any(q.source == "stackexchange-beer" for data in parts for q in data.questions)


def test_twins_are_found_by_their_words() -> None:
    twins = Twins(["salt is hard", "milk has much fat"])
    assert twins.closest("Milk has fat.") == pytest.approx(3 / 4)
    assert twins.closest("salt is a mineral") == pytest.approx(2 / 5)
    assert twins.closest("tea") == 0.0


def test_overlaps_are_counted(collections: Path) -> None:
    pairs = [*PAIRS, ("where is Rome", "Rome is in Italy."), ("which city", "Rome is in Italy.")]
    training, reserved = loaded(collections, *pairs)
    counted = counts(training, reserved, collections)
    questions, shared = counted["training questions"], counted["evaluation sets"]
    assert questions["all"] == len(training.questions)
    assert questions["reserved"] == len(reserved.questions)
    assert shared["judged passages trained on"] == shared["reserved passages trained on"] == 0
    assert 0 < float(shared["most similar question"]) < 0.6
    is_trained = not any("Rome is in Italy." in texts(data) for data in (reserved,))
    assert shared["qed-nq-dev large: passages"] == 3
    assert shared["qed-nq-dev large: trained on"] == is_trained
    assert shared["qed-nq-dev small: trained on"] == 0


def test_an_unseen_corpus_lacks_what_was_trained_on() -> None:
    documents = {"a": "Rome is in Italy.", "b": "Oslo is in Norway."}
    collection = Collection("c", {"q": "Oslo"}, documents, {"q": {"b": 1}})
    assert unseen(collection, {"rome is in italy"}).documents == {"b": "Oslo is in Norway."}


def test_requests_are_measured_over_whole_and_over_mixed_passages(data: Data) -> None:
    made = requests(data)
    assert [one.name for one in made] == [
        "topics", "topics, mixed lengths", "keywords", "keywords, mixed lengths",
    ]  # fmt: skip
    headings = {p.heading for p in data.pools["fruit"]}
    whole, mixed = ({text in headings for text in one.documents.values()} for one in made[:2])
    assert (whole, mixed) == ({False}, {False, True})
    for one in made:
        assert all(judged.keys() <= one.documents.keys() for judged in one.relevance.values())


def test_a_collection_has_every_passage_once() -> None:
    twice = Passage("Oslo is in Norway.", "Oslo"), Passage("oslo is in Norway", "Norway")
    questions = [Question(f"q{n}", (passage,), "quac", "quac") for n, passage in enumerate(twice)]
    collection = as_collection("c", with_pools(questions))
    assert len(collection.documents) == 1
    assert collection.relevance["q0"] == collection.relevance["q1"] == {"d0": 1}
