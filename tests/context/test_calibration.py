"""Probabilities of relevance from logits, and the command that fits them."""

from __future__ import annotations

import json
import math
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOLDEN
from evaluation.conftest import write_json_lines
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bge_rerank_integrations import ConfigurationError, RerankEngine, langchain, llama_index
from bge_rerank_integrations.calibration import Calibration, weights_digest
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.context.selection import prune
from bge_rerank_integrations.evaluation.calibrating import (
    calibrate,
    expected_calibration_error,
    fit,
)
from bge_rerank_integrations.evaluation.collection import Collection
from bge_rerank_integrations.evaluation.runs import Run
from bge_rerank_integrations.highlighting import SentenceWindows
from bge_rerank_integrations.ranking import sigmoid

finite = st.floats(-50, 50)


def drawn(scale: float, shift: float, pairs: int) -> tuple[list[float], list[bool]]:
    """Logits, and relevance as a calibration with these values would have it."""
    rng = random.Random(0)
    logits = [rng.gauss(0, 4) for _ in range(pairs)]
    return logits, [rng.random() < sigmoid(scale * logit + shift) for logit in logits]


# --- the fit -----------------------------------------------------------------------------------


def test_scale_and_shift_are_found_again() -> None:
    logits, relevant = drawn(0.7, -2.0, 4_000)

    fitted = Calibration("m", *fit(logits, relevant))

    assert (fitted.scale, fitted.shift) == (
        pytest.approx(0.7, abs=0.06),
        pytest.approx(-2, abs=0.2),
    )
    before = expected_calibration_error([sigmoid(logit) for logit in logits], relevant)
    after = expected_calibration_error([fitted(logit) for logit in logits], relevant)
    assert before > 0.15
    assert after < 0.03


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    """With Platt's targets, the mean probability is the mean target, and errors are orthogonal."""
    logits, relevant = [3.0, 1.0, 0.5, -2.0, -4.0], [True, False, True, False, False]

    fitted = Calibration("m", *fit(logits, relevant))

    errors = [
        fitted(logit) - (3 / 4 if is_relevant else 1 / 5)
        for logit, is_relevant in zip(logits, relevant, strict=True)
    ]
    assert sum(errors) == pytest.approx(0, abs=1e-5)
    assert sum(map(math.prod, zip(errors, logits, strict=True))) == pytest.approx(0, abs=1e-5)


def test_pairs_that_a_threshold_separates_get_no_certainty() -> None:
    for scale in (1, 1e4):
        fitted = Calibration("m", *fit([scale, 2 * scale, 3 * scale], [False, False, True]))
        assert 0.1 < fitted(scale) < 0.5 < fitted(3 * scale) < 0.9


@given(st.lists(st.tuples(finite, st.booleans()), min_size=2, max_size=30))
def test_a_fit_keeps_the_order_or_is_refused(pairs: list[tuple[float, bool]]) -> None:
    logits, relevant = [logit for logit, _ in pairs], [is_relevant for _, is_relevant in pairs]
    try:
        fitted = Calibration("m", *fit(logits, relevant))
    except ConfigurationError:
        return
    probabilities = [fitted(logit) for logit in sorted(logits)]
    assert probabilities == sorted(probabilities)
    assert all(0 <= probability <= 1 for probability in probabilities)


@pytest.mark.parametrize(
    ("logits", "relevant", "message"),
    [
        ([1.0, 2.0], [True, True], "relevant pairs and others, got 2 relevant ones of 2"),
        ([], [], "got 0 relevant ones of 0"),
        ([1.0, 2.0, 3.0, 4.0], [True, True, False, False], "ranks irrelevant documents above"),
    ],
)
def test_pairs_that_fit_nothing_are_refused(
    logits: list[float], relevant: list[bool], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit(logits, relevant)


def test_the_expected_calibration_error_is_its_definition() -> None:
    probabilities = [0.05, 0.05, 0.65, 0.61, 1.0]
    relevant = [False, True, True, True, True]

    # bins 0.0 to 0.1: 2 pairs, 0.05 against 0.5; 0.6 to 0.7: 0.63 against 1; the last: 1 against 1
    assert expected_calibration_error(probabilities, relevant) == pytest.approx(
        (2 * 0.45 + 2 * 0.37) / 5
    )
    assert expected_calibration_error([0.05, 0.95], [True, False]) == pytest.approx(0.95)
    assert expected_calibration_error([], []) == 0


# --- the file ----------------------------------------------------------------------------------


def test_a_file_is_read_back(tmp_path: Path) -> None:
    calibration = Calibration("m", 0.5, -1.25)
    calibration.save(tmp_path / "c.json", {"queries": 7})

    assert Calibration.read(str(tmp_path / "c.json")) == calibration
    assert json.loads((tmp_path / "c.json").read_text("utf-8"))["queries"] == 7


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"model": "m", "scale": 1, "weights": "w"}',
        '{"model": "m", "scale": 0, "shift": 0, "weights": "w"}',
        '{"model": "m", "scale": NaN, "shift": 0, "weights": "w"}',
        '{"scale": 1, "shift": 0, "weights": "w"}',
        '{"model": "m", "scale": 1, "shift": 0}',
        '{"model": "m", "scale": 1, "shift": 0, "weights": 7}',
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"calibration .*json"):
        Calibration.read(str(path))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Calibration.read(str(tmp_path / "missing.json"))


# --- in the engine -----------------------------------------------------------------------------


def saved(path: Path, model: str, scale: float = 2.0, shift: float = 1.0) -> str:
    """A calibration of a golden model, which may have any name."""
    weights = weights_digest(GOLDEN / model)
    Calibration(f"elsewhere/{model}", scale, shift, weights).save(path, {})
    return str(path)


async def test_an_engine_reports_probabilities(xlmr: str, tmp_path: Path) -> None:
    documents = ["one", "another", "a third"]
    path = saved(tmp_path / "c.json", "xlmr", scale=0.5)
    with RerankEngine(xlmr, device="cpu", dtype="float32", calibration=path) as engine:
        scores = engine.score("query", documents)
        logits = engine.score("query", documents, normalize=False)

        assert scores == [sigmoid(0.5 * logit + 1) for logit in logits]
        assert await engine.ascore("query", documents) == scores
        assert engine.score_pairs([("query", document) for document in documents]) == scores
        assert engine.score("query", documents, calibration=None) == list(map(sigmoid, logits))
        order = [kept.index for kept in engine.rerank("query", documents)]
        assert order == [kept.index for kept in engine.rerank("query", documents, normalize=False)]


SENTENCES = ["Ships float on water. ", "Bread is baked in an oven. ", "The sea is deep."]


@pytest.mark.parametrize("setting", ["prune", "prune_share"])
async def test_sentences_are_scored_and_cut_on_the_calibrated_scale(
    xlmr: str, tmp_path: Path, setting: str
) -> None:
    path = saved(tmp_path / "c.json", "xlmr", scale=20.0, shift=-12.0)
    engine = RerankEngine.shared(xlmr, device="cpu", dtype="float32", calibration=path)
    text, windows = "".join(SENTENCES), SentenceWindows(["".join(SENTENCES)]).texts
    given: Any = {"prune": 0.0, "prune_share": 0.0}
    [spans] = engine.highlight("query", [text])
    [plain] = engine.highlight("query", [text], calibration=None)

    # each sentence is in two windows, and each window's score is a probability
    logits = engine.score("query", windows, normalize=False)
    probabilities = [sigmoid(20 * logit - 12) for logit in logits]
    assert [span.score for span in spans] == [
        math.sqrt(one * other) for one, other in pairwise(probabilities)
    ]
    assert await engine.ahighlight("query", [text]) == [spans]

    # a setting that cuts the worst sentence only; without a calibration it would cut otherwise
    worst, second, best = sorted(span.score for span in spans)
    given[setting] = (worst + second) / 2 / (best if setting == "prune_share" else 1)
    expected = "".join(s for s, span in zip(SENTENCES, spans, strict=True) if span.score > worst)
    threshold = {"threshold": given["prune"], "share": given["prune_share"]}
    assert prune(text, spans, **threshold).split() == expected.split()
    assert prune(text, plain, **threshold).split() != expected.split()
    compressor = langchain.BGERerank(reranker=engine, **given)
    [document] = compressor.compress_documents([Document(text)], "query")
    assert document.page_content.split() == expected.split()
    [adocument] = await compressor.acompress_documents([Document(text)], "query")
    assert adocument == document
    postprocessor = llama_index.BGERerank(reranker=engine, **given)
    node = NodeWithScore(node=TextNode(text=text))
    [kept] = postprocessor.postprocess_nodes([node], query_str="query")
    assert kept.node.get_content() == document.page_content
    assert kept.score == document.metadata["relevance_score"]


def test_a_refitted_file_is_read_again(xlmr: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    engine = RerankEngine.shared(xlmr, device="cpu", calibration=saved(path, "xlmr", scale=2.0))
    [logit] = engine.score("query", ["one"], normalize=False)
    assert engine.score("query", ["one"]) == [sigmoid(2 * logit + 1)]
    # of the same length, and within the same second
    saved(path, "xlmr", scale=3.0)
    assert engine.score("query", ["one"]) == [sigmoid(3 * logit + 1)]
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        engine.score("query", ["one"])


@pytest.fixture
def fine_tuned(tmp_path: Path) -> Path:
    """A folder of the same name as the base, with equal shapes and other values."""
    folder = tmp_path / "b" / "xlmr"
    shutil.copytree(GOLDEN / "xlmr", folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor * 1.01 for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_another_models_calibration_is_refused_when_the_engine_is_made(
    xlmr: str, fine_tuned: Path, tmp_path: Path
) -> None:
    path = saved(tmp_path / "c.json", "xlmr")
    RerankEngine.shared(xlmr, calibration=path)
    message = r"fitted on other weights \(elsewhere/xlmr\).*calibrate --model"
    with pytest.raises(ConfigurationError, match=message):
        RerankEngine.shared(fine_tuned, calibration=path)
    with pytest.raises(ConfigurationError, match=message):
        RerankEngine.shared("tiny", calibration=path)


def test_a_copy_has_the_same_weights_however_it_is_sharded(tmp_path: Path) -> None:
    folder, half = tmp_path / "copy", {}
    folder.mkdir()
    weights = load_file(GOLDEN / "xlmr" / "model.safetensors")
    for name in list(weights)[::2]:
        half[name] = weights.pop(name)
    save_file(weights, folder / "model-00001-of-00002.safetensors")
    save_file(half, folder / "model-00002-of-00002.safetensors")
    assert weights_digest(folder) == weights_digest(GOLDEN / "xlmr")


@pytest.mark.parametrize("changed", ["name", "shape", "type", "value"])
def test_any_change_of_a_tensor_makes_other_weights(changed: str, tmp_path: Path) -> None:
    def digest(**tensors: torch.Tensor) -> str:
        save_file(tensors, tmp_path / "model.safetensors")
        return weights_digest(tmp_path)

    head = torch.arange(6.0).view(2, 3)
    others = {
        "name": {"body": head},
        "shape": {"head": head.view(3, 2)},
        "type": {"head": head.view(torch.int32)},
        "value": {"head": head + torch.eye(2, 3)},
    }
    assert digest(head=head) == digest(head=head)
    assert digest(**others[changed]) != digest(head=head)


def test_weights_that_cannot_be_read_are_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0no json ")
    with pytest.raises(ConfigurationError, match="the weights cannot be read"):
        weights_digest(tmp_path)


def test_a_calibration_is_of_the_last_layer(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.json", "minicpm")
    model = str(GOLDEN / "minicpm")
    settings: Any = {"device": "cpu", "dtype": "float32", "cutoff_layers": (2, 3)}
    with RerankEngine(model, calibration=path, **settings) as engine:
        layers = engine.score_layers([("query", "document")])
        [calibrated] = engine.score("query", ["document"])

        assert layers[3] == [sigmoid(layers[3].logits[0])]
        assert calibrated == sigmoid(2 * layers[3].logits[0] + 1)


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Candidate lists that the tiny model ranks well."""
    cities = {"Germany": "Berlin", "France": "Paris", "Italy": "Rome", "Spain": "Madrid"}
    rows = [
        {
            "query": f"what is the capital of {country}?",
            "candidates": [f"{city} is the capital of {country}.", "Bread is baked.", "A cat."],
            "labels": [1, 0, 0],
        }
        for country, city in cities.items()
    ]
    return write_json_lines(tmp_path / "lists.jsonl", rows)


def test_the_command_writes_a_file_that_the_engine_takes(judged: Path, tmp_path: Path) -> None:
    output = tmp_path / "tiny.json"
    result = CliRunner().invoke(app, ["calibrate", str(judged), "--output", str(output)])

    assert result.exit_code == 0, result.output
    fitted = json.loads(output.read_text("utf-8"))
    assert fitted["model"] == "tiny"
    assert fitted["weights"] == RerankEngine.shared("tiny").weights_digest
    assert (fitted["queries"], fitted["pairs"], fitted["relevant"]) == (4, 12, 4)
    errors = fitted["expected_calibration_error"]
    assert f"{errors['before']:.3f} before, {errors['after']:.3f} after" in result.stdout
    engine = RerankEngine.shared("tiny", calibration=str(output))
    query, document = "what is the capital of Germany?", "Berlin is the capital of Germany."
    [score] = engine.score(query, [document])
    [logit] = engine.score(query, [document], normalize=False)
    assert score == sigmoid(fitted["scale"] * logit + fitted["shift"])


def judged_pairs(
    logits: dict[str, list[float]], relevant: dict[str, list[bool]]
) -> tuple[Collection, Run]:
    """Queries whose candidates have these judgments."""
    names = {query: [f"{query}/{n}" for n in range(len(logits[query]))] for query in logits}
    collection = Collection(
        "drawn",
        dict.fromkeys(logits, "text"),
        {name: "text" for query in names for name in names[query]},
        {query: dict(zip(names[query], map(int, relevant[query]), strict=True)) for query in names},
    )
    return collection, Run("all", names)


def test_errors_are_those_of_queries_that_the_fit_has_not_seen() -> None:
    logits, relevant = drawn(0.7, -2.0, 2_000)
    starts = {str(number): 20 * number for number in range(100)}
    of_queries = {query: logits[start : start + 20] for query, start in starts.items()}
    judged = {query: relevant[start : start + 20] for query, start in starts.items()}

    fitted = calibrate("m", *judged_pairs(of_queries, judged), of_queries)

    assert fitted.calibration == Calibration("m", *fit(logits, relevant))
    assert (fitted.queries, fitted.pairs, fitted.held_out) == (100, 2_000, 25)
    assert fitted.before > 0.15
    assert fitted.after < 0.06


def test_queries_held_out_are_not_in_the_fit_that_is_measured_on_them() -> None:
    """All relevant but one query's: without that query the fit cannot know of its low logits."""
    afters = []
    for odd in range(4):
        logits = {str(number): [-3.0, -1.0, 1.0, 3.0] * 25 for number in range(4)}
        relevant = {query: [False, False, True, True] * 25 for query in logits}
        relevant[str(odd)] = [True, True, True, True] * 25

        fitted = calibrate("m", *judged_pairs(logits, relevant), logits)

        assert fitted.held_out == 1
        afters.append(fitted.after)
    # one of the four is held out, and half of its pairs are certain and wrong
    *_, third, largest = sorted(afters)
    assert largest > 0.45
    assert third < 0.3


def test_too_few_queries_are_refused(judged: Path, tmp_path: Path) -> None:
    arguments = ["calibrate", str(judged), "--output", str(tmp_path / "c"), "--max-queries", "3"]
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert "4 judged queries or more, got 3" in result.stderr
    assert not (tmp_path / "c").exists()


def test_a_calibrated_model_is_not_calibrated_again(judged: Path) -> None:
    result = CliRunner().invoke(app, ["calibrate", str(judged), "--model", "tiny,calibration=c"])

    assert result.exit_code == 2
    assert "must have no calibration yet" in result.stderr
