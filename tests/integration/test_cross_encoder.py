"""The engine in the place of sentence-transformers' cross-encoder."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from checkpoints import SMALL
from saved_models import SPECIAL, dense_head, save_classifier, save_modules
from sentence_transformers.cross_encoder.evaluation import (
    CrossEncoderClassificationEvaluator,
    CrossEncoderRerankingEvaluator,
)
from transformers import BertConfig, XLMRobertaConfig

from bge_rerank_integrations import ConfigurationError, InputError, RerankEngine
from bge_rerank_integrations.cross_encoder import CrossEncoder

DOCUMENTS = ["a bear of China", "a red car", "", "the giant panda eats bamboo " * 3, "a red car"]
PAIRS = [(query, document) for query in ("what is a panda?", "car") for document in DOCUMENTS]
EXACT = {"rtol": 0, "atol": 1e-5}
Both = tuple[sentence_transformers.CrossEncoder, CrossEncoder]


@pytest.fixture(
    scope="module", params=["sigmoid", "identity with a prompt", "sigmoid of dense layers"]
)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """A checkpoint in sentence-transformers and in the engine."""
    folder = tmp_path_factory.mktemp("model") / "saved"
    bert = BertConfig(**SMALL)
    if request.param == "sigmoid":
        save_classifier(XLMRobertaConfig(**SMALL, **SPECIAL, num_labels=1), folder)
    elif request.param == "sigmoid of dense layers":
        save_modules(bert, folder, dense_head("mean"))
    else:
        prompts = {"prompts": {"ask": "find: "}, "default_prompt_name": "ask"}
        head = dense_head("cls")
        save_modules(bert, folder, head, activation_fn=torch.nn.Identity(), **prompts)
    with RerankEngine(str(folder), dtype="float32", device="cpu") as engine:
        yield sentence_transformers.CrossEncoder(str(folder), device="cpu"), CrossEncoder(engine)


@pytest.fixture(scope="module")
def theirs(xlmr: str) -> sentence_transformers.CrossEncoder:
    return sentence_transformers.CrossEncoder(xlmr, device="cpu")


@pytest.fixture
def ours(engine: RerankEngine) -> CrossEncoder:
    return CrossEncoder(engine)


def test_predictions_and_rankings_equal_sentence_transformers(both: Both) -> None:
    theirs, ours = both
    np.testing.assert_allclose(ours.predict(PAIRS), theirs.predict(PAIRS), **EXACT)
    doubled = {"activation_fn": lambda logits: logits * -2, "apply_softmax": True}
    np.testing.assert_allclose(
        ours.predict(PAIRS, **doubled), theirs.predict(PAIRS, **doubled), **EXACT
    )
    for options in ({}, {"activation_fn": torch.neg}, {"top_k": 2, "return_documents": True}):
        expected = theirs.rank("panda", DOCUMENTS, **options)
        ranked = ours.rank("panda", DOCUMENTS, **options)
        # the order of equal texts is that of the input, there as here
        assert [list(one) for one in ranked] == [list(one) for one in expected]
        for key in ("corpus_id", "text"):
            assert [one.get(key) for one in ranked] == [one.get(key) for one in expected]
        np.testing.assert_allclose(
            [one["score"] for one in ranked], [one["score"] for one in expected], **EXACT
        )


@pytest.mark.parametrize(
    "inputs",
    [
        PAIRS,
        tuple(map(list, PAIRS)),
        np.array(PAIRS),
        [],
        PAIRS[0],
        list(PAIRS[0]),
        np.array(PAIRS[0]),
    ],
    ids=["pairs", "lists", "array", "none", "one pair", "one list", "one array"],
)
@pytest.mark.parametrize(
    "convert",
    [
        {},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"convert_to_tensor": True, "convert_to_numpy": False},
    ],
    ids=str,
)
def test_answers_have_the_types_of_sentence_transformers(
    theirs: sentence_transformers.CrossEncoder,
    ours: CrossEncoder,
    inputs: Any,
    convert: dict[str, bool],
) -> None:
    expected = theirs.predict(inputs, **convert)
    answer = ours.predict(inputs, **convert, activation_fn=torch.nn.Sigmoid())
    assert type(answer) is type(expected)
    if isinstance(expected, list):
        assert all(type(one) is torch.Tensor and one.shape == () for one in answer)
    else:
        assert answer.shape == expected.shape
        # of no pair at all, theirs are float64
        assert answer.dtype == expected.dtype or not len(inputs)
    np.testing.assert_allclose(answer, expected, **EXACT)


@pytest.mark.parametrize("method", ["predict", "rank"])
def test_arguments_are_those_of_sentence_transformers(method: str) -> None:
    theirs = signature(getattr(sentence_transformers.CrossEncoder, method)).parameters
    expected = [(one.name, one.default) for one in theirs.values() if one.kind != one.VAR_KEYWORD]
    ours = signature(getattr(CrossEncoder, method)).parameters
    assert [(one.name, one.default) for one in ours.values()] == expected


def test_the_scale_of_the_engine_is_the_scale_of_the_answers(engine: RerankEngine) -> None:
    scores = engine.score_pairs(PAIRS, normalize=False)
    assert not engine.options.normalize
    np.testing.assert_allclose(CrossEncoder(engine).predict(PAIRS), scores, rtol=1e-6)


def test_any_number_of_pairs_streams_through_a_short_queue(
    xlmr: str, theirs: sentence_transformers.CrossEncoder
) -> None:
    pairs = [("panda", f"number {number % 7}") for number in range(300)]
    with RerankEngine(xlmr, dtype="float32", device="cpu", max_queued_pairs=20) as engine:
        answer = CrossEncoder(engine).predict(pair for pair in pairs)
    np.testing.assert_allclose(answer, theirs.predict(pairs), **EXACT)


def test_a_prompt_is_the_instruction(both: Both) -> None:
    theirs, ours = both
    if not theirs.prompts.get("ask"):
        with pytest.raises(ConfigurationError, match="instruction must be None"):
            ours.predict(PAIRS, prompt="who is ")
        return
    expected = theirs.predict(PAIRS, prompt="who is ")
    np.testing.assert_allclose(ours.predict(PAIRS, prompt="who is "), expected, **EXACT)
    assert ours.predict(PAIRS).tolist() != ours.predict(PAIRS, prompt="who is ").tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt_name": "ask"}, "no prompts by name, got prompt_name='ask'"),
        ({"batch_size": 0}, "batch_size must be an int of at least 1, got 0"),
        ({"device": "cuda"}, "device must be None"),
        ({"pool": {}}, "pool must be None"),
        ({"chunk_size": 5}, "chunk_size must be None"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    ours: CrossEncoder, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ours.predict(PAIRS, **arguments)
    with pytest.raises(ConfigurationError, match=message):
        ours.rank("q", DOCUMENTS, **arguments)


def test_what_is_no_pair_is_named(ours: CrossEncoder) -> None:
    with pytest.raises(InputError, match="pair 1 must be"):
        ours.predict([("q", "d"), ("q",)])
    with pytest.raises(InputError, match="document 1 must be a string"):
        ours.rank("q", ["d", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="query must be a string"):
        ours.rank(None, ["d"])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="top_n"):
        ours.rank("q", ["d"], top_k=0)


def test_the_evaluators_of_sentence_transformers_run_on_the_engine(
    both: Both, tmp_path: Path
) -> None:
    samples = [
        {"query": "panda", "positive": [DOCUMENTS[0]], "documents": DOCUMENTS[:4]},
        {"query": "car", "positive": [DOCUMENTS[1]], "documents": DOCUMENTS[:4]},
    ]
    negatives = [{"query": "panda", "positive": DOCUMENTS[3], "negative": DOCUMENTS[:2]}]
    for evaluator in (
        CrossEncoderRerankingEvaluator(samples, name="own"),
        CrossEncoderRerankingEvaluator(
            [{**one, "positive": [one["positive"]]} for one in negatives], batch_size=1
        ),
        CrossEncoderClassificationEvaluator(PAIRS, [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]),
    ):
        theirs, ours = both
        expected = evaluator(theirs)
        assert evaluator(ours, str(tmp_path)) == pytest.approx(expected, abs=1e-5)
    assert len(list(tmp_path.iterdir())) == 3
