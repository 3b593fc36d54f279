"""One document at fault: its caller is told, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from threading import Event

import numpy as np
import pytest
from callers import PATIENCE_S, assert_works, error_of, expected, in_thread, wait_until
from fakes import FakeScorer, Logits, MakeEngine, TokenSequence, digests, text_of, tokenize

from bge_rerank_integrations import InputError, NonFiniteScoreError, ScoringError

GOOD = [f"document {number}" for number in range(20)]
BAD = [*GOOD[:13], "poison", *GOOD[13:]]


class PanicException(BaseException):  # the name that pyo3 gives it
    """What a panic in a tokenizer's Rust becomes: no ``Exception``."""


def poisoned(spoil: Callable[[Logits, int], Logits]) -> FakeScorer:
    """A scorer whose answer is spoiled if the poison is in the batch."""

    def answer(batch: Sequence[TokenSequence]) -> Logits:
        logits = digests(batch)
        for row, pair in enumerate(batch):
            if text_of(pair) == "poison":
                logits = spoil(logits, row)
        return logits

    return FakeScorer(answer)


def raises(logits: Logits, row: int) -> Logits:
    raise RuntimeError("index out of range in self")


def has_nan(logits: Logits, row: int) -> Logits:
    logits[row] = np.nan
    return logits


def has_infinity(logits: Logits, row: int) -> Logits:
    logits[row] = -np.inf
    return logits


def has_too_few(logits: Logits, row: int) -> Logits:
    return np.delete(logits, row, axis=0)


def has_no_columns(logits: Logits, row: int) -> Logits:
    return logits[:, :0]


def has_one_axis(logits: Logits, row: int) -> Logits:
    return logits[:, 0]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (raises, ScoringError, "scoring document 13 failed: index out of range"),
        (has_nan, NonFiniteScoreError, "the score of document 13 must be finite.* nan"),
        (has_infinity, NonFiniteScoreError, "the score of document 13 must be finite.* -inf"),
        (has_too_few, ScoringError, r"document 13 .*\(1, 1\) were expected, .* gave \(0, 1\)"),
        (has_no_columns, ScoringError, r"document 13 .*the model gave \(1, 0\)"),
        (has_one_axis, ScoringError, r"document 13 .*the model gave \(1,\)"),
    ],
)
def test_only_the_caller_of_a_bad_document_fails(
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Logits, int], Logits],
    error: type[ScoringError],
    message: str,
) -> None:
    """One of 201 documents of 8 callers, all in the same batches."""
    scorer = poisoned(spoil)
    scorer.gate = Event()
    engine = make_engine(scorer, max_batch_tokens=4_096)
    first = in_thread(engine.score, "first", ["x"])
    assert scorer.entered.wait(PATIENCE_S)
    calls = [in_thread(engine.score, f"q{number}", [*GOOD, "x", "y"]) for number in range(7)]
    bad = in_thread(engine.score, "bad", BAD)
    wait_until(lambda: engine.stats().queued_pairs == 1 + 7 * 22 + 21)
    scorer.gate.set()
    for number, call in enumerate(calls):
        assert call.result(PATIENCE_S) == expected(f"q{number}", [*GOOD, "x", "y"])
    assert first.result(PATIENCE_S) == expected("first", ["x"])
    caught = error_of(bad)
    assert type(caught) is error
    with pytest.raises(error, match=message) as again:
        raise caught
    assert again.value.index == 13
    wait_until(lambda: caplog.text.count("a call failed") == 1)
    assert engine.stats().failures == 1
    assert_works(engine)


@pytest.fixture(params=["tokenizer", "scorer", "logits"])
def make_poisoned(request: pytest.FixtureRequest, make_engine: MakeEngine) -> MakeEngine:
    """Makes an engine in which the poison does its harm at one stage."""
    if request.param == "tokenizer":
        return partial(make_engine, tokenize=broken_tokenizer(TypeError("not a text")))
    return partial(make_engine, poisoned(raises if request.param == "scorer" else has_nan))


def test_a_bad_document_after_repeated_ones_has_its_own_index(make_poisoned: MakeEngine) -> None:
    """Repeated documents are scored once; the caller counts all of them."""
    engine = make_poisoned()
    with pytest.raises((InputError, ScoringError), match="document 4 ") as caught:
        engine.score("q", ["a", "b", "a", "a", "poison", "poison"])
    assert caught.value.index == 4
    with pytest.raises((InputError, ScoringError), match="document 5 ") as caught:
        engine.score_pairs([("q", document) for document in ["a", "b", "b", "b", "a", "poison"]])
    assert caught.value.index == 5


def test_a_bad_document_late_in_a_long_call_has_its_own_index(make_poisoned: MakeEngine) -> None:
    """A long call is tokenized in parts."""
    engine = make_poisoned(max_batch_tokens=10_000)
    documents = [f"{number}" for number in range(600)]
    documents[300] = "poison"
    with pytest.raises((InputError, ScoringError), match="document 300 ") as caught:
        engine.score("q", documents)
    assert caught.value.index == 300


async def test_a_bad_pair_late_in_a_stream_has_its_own_index(make_poisoned: MakeEngine) -> None:
    """A stream is scored in chunks, here of 2 pairs; the caller counts all of them."""
    engine = make_poisoned(max_queued_pairs=4)
    pairs = [("q", document) for document in [*GOOD[:5], "good", "good", "poison", "good"]]
    with pytest.raises((InputError, ScoringError), match="document 7 ") as caught:
        engine.score_pairs(pairs)
    assert caught.value.index == 7
    with pytest.raises((InputError, ScoringError), match="document 7 ") as caught:
        await engine.ascore_pairs(pairs)
    assert caught.value.index == 7


def test_the_cause_of_a_failure_is_chained(make_engine: MakeEngine) -> None:
    with pytest.raises(ScoringError) as caught:
        make_engine(poisoned(raises)).score("q", BAD)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_no_error_in_the_chain_keeps_the_frames_of_a_pass(make_engine: MakeEngine) -> None:
    """Frames hold a batch's tensors, also those of an error during which another one came."""

    def raises_in_the_wake_of_another(logits: Logits, row: int) -> Logits:
        try:
            raise KeyError(row)
        except KeyError:
            raise RuntimeError("index out of range in self")  # noqa: B904

    with pytest.raises(ScoringError) as caught:
        make_engine(poisoned(raises_in_the_wake_of_another)).score("q", BAD)
    cause = caught.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert isinstance(cause.__context__, KeyError)
    assert cause.__traceback__ is cause.__context__.__traceback__ is None


def broken_tokenizer(
    error: BaseException,
) -> Callable[[Sequence[tuple[str, str]]], list[list[TokenSequence]]]:
    def broken(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        if any(document == "poison" for _, document in pairs):
            raise error
        return tokenize(pairs)

    return broken


@pytest.mark.parametrize("error", [TypeError("not a text"), PanicException("no such piece")])
def test_a_tokenizer_error_names_the_document(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    engine = make_engine(tokenize=broken_tokenizer(error))
    with pytest.raises(InputError, match="document 13 cannot be tokenized") as caught:
        engine.score("q", BAD)
    assert caught.value.index == 13
    assert caught.value.__cause__ is error
    wait_until(lambda: "a call failed: document 13 cannot be tokenized" in caplog.text)
    assert engine.stats().failures == 1
    assert_works(engine)


def test_a_tokenizer_error_of_several_documents_together(make_engine: MakeEngine) -> None:
    def broken(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        if len(pairs) > 10:
            raise MemoryError("too many")
        return tokenize(pairs)

    engine = make_engine(tokenize=broken)
    with pytest.raises(ScoringError, match="tokenization failed: too many"):
        engine.score("q", BAD)
    assert_works(engine)


@pytest.mark.parametrize(
    "lose", [lambda made: made[:-1], lambda made: [*made[:-1], []]], ids=["pair", "sequences"]
)
def test_a_tokenizer_that_loses_something_leaves_no_call_incomplete(
    make_engine: MakeEngine,
    lose: Callable[[list[list[TokenSequence]]], list[list[TokenSequence]]],
) -> None:
    def losing(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        made = tokenize(pairs)
        return lose(made) if any(document == "poison" for _, document in pairs) else made

    engine = make_engine(tokenize=losing)
    with pytest.raises(InputError, match=r"document 13 .* expected, the tokenizer gave 0"):
        engine.score("q", BAD, timeout_s=PATIENCE_S)
    assert_works(engine)
