"""Texts that nobody would write, against every family: a finite score or a typed error.

As many as ``fuzzing.py`` says, over all families together.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fuzzing import CASES
from paths import GOLDEN

from bge_rerank_integrations import InputError, RerankEngine

FAMILIES = ("xlmr", "gemma", "minicpm", "light")
MILLION = 1_000_000
MAX_PAIR_S = 2.0

SPACES = " \t\n\r\v\f\0\u00a0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff\u2581"
MARKS = "\u0301\u0323\u0302\u0338\u20dd\u0489\u200d\ufe0f\u0e31\u064b\u0591\u093c"
RIGHT_TO_LEFT = "\u202e\u200f\u05e9\u05dc\u05d5\u05dd\u0645\u0631\u062d\u0628\u0627\u202c\u2067"
EMOJI = "👩\u200d👧🇩🇪\U0001f3fd🧟\u20e3☃"
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "<bos>", "<eos>", "<|im_end|>", "[SEP]",
           "{query}", "{passage}", "{prompt}", "\\", "%s", "{0}"]  # fmt: skip

Maker = Callable[[random.Random], object]


def any_character(chooser: random.Random) -> str:
    """Any code point, lone surrogates among them; the planes that texts use more often."""
    return chr(chooser.choice([chooser.randrange(0x110000), chooser.randrange(0x3000)]))


def several(characters: str | list[str]) -> Maker:
    return lambda chooser: "".join(chooser.choices(characters, k=chooser.randrange(60)))


def long(chooser: random.Random) -> str:
    piece = chooser.choice([several(SPACES), several(MARKS), several(EMOJI), several(SPECIAL)])
    return (str(piece(chooser)) + "x") * chooser.randrange(1, 400)


MAKERS: list[tuple[Maker, int]] = [
    (lambda chooser: "".join(any_character(chooser) for _ in range(chooser.randrange(80))), 30),
    (lambda chooser: "".join(chr(chooser.randrange(0x250)) for _ in range(80)), 20),
    (lambda chooser: "\ud800\udfff"[chooser.randrange(2)] * chooser.randrange(1, 3), 5),
    (lambda chooser: "", 5),
    (several(SPACES), 10),
    (several("e" + MARKS), 10),
    (several(RIGHT_TO_LEFT), 10),
    (several(EMOJI), 10),
    (several(SPECIAL), 10),
    (long, 5),
    (lambda chooser: chooser.choice([None, 5, 1.5, b"bytes", ["text"], object(), True]), 5),
]

GIANTS = {
    "spaces": " " * MILLION,
    "other spaces": SPACES * (MILLION // len(SPACES)),
    "one word": "x" * MILLION,
    "one unknown word": "語" * MILLION,
    "one letter's marks": "e" + "\u0301" * MILLION,
    "marks out of order": "\u0301\u0323" * (MILLION // 2),
    "letters with marks": "e\u0323\u0301" * (MILLION // 3),
    "NUL": "\0" * MILLION,
    "right to left": RIGHT_TO_LEFT * (MILLION // len(RIGHT_TO_LEFT)),
    "one character of eighteen": "\ufdfa" * MILLION,
    "emoji": EMOJI * (MILLION // len(EMOJI)),
    "special tokens": "</s>" * (MILLION // 4),
    "words": "many words " * (MILLION // 11),
    "a word at the end": " " * MILLION + "end",
    "anything": "".join(any_character(random.Random(1)) for _ in range(9)).encode(
        "utf-8", "ignore").decode() * (MILLION // 9),
}  # fmt: skip


def any_text(chooser: random.Random) -> object:
    makers, weights = zip(*MAKERS, strict=True)
    return chooser.choices(makers, weights)[0](chooser)


def is_valid(text: object) -> bool:
    return isinstance(text, str) and not any("\ud800" <= letter <= "\udfff" for letter in text)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[RerankEngine]:
    with RerankEngine(str(GOLDEN / request.param), device="cpu", dtype="float32") as engine:
        yield engine


def test_any_text_is_scored_or_refused_by_its_index(family: RerankEngine) -> None:
    chooser = random.Random(Path(family.model).name)
    tried = 0
    while tried < CASES / len(FAMILIES):
        query = any_text(chooser)
        documents = [any_text(chooser) for _ in range(chooser.randrange(1, 16))]
        tried += 1 + len(documents)
        wrong = [index for index, document in enumerate(documents) if not is_valid(document)]
        if not is_valid(query):
            with pytest.raises(InputError, match=r"^query ") as refused:
                family.rerank(query, documents)  # type: ignore[arg-type]
            assert refused.value.index is None
            query = "a query"
        if wrong:
            with pytest.raises(InputError, match=f"^document {wrong[0]} ") as refused:
                family.rerank(query, documents)  # type: ignore[arg-type]
            assert refused.value.index == wrong[0]
        good = [document for document in documents if is_valid(document)]
        ranking = family.rerank(query, good, timeout_s=60)  # type: ignore[arg-type]
        assert sorted(document.index for document in ranking) == list(range(len(good)))
        assert all(math.isfinite(document.score) for document in ranking)
    stats = family.stats()
    assert (stats.state, stats.failures, stats.queued_pairs) == ("ready", 0, 0)


@pytest.mark.parametrize("name", GIANTS)
def test_a_text_of_a_million_characters_takes_no_time(family: RerankEngine, name: str) -> None:
    pairs = [("a query", GIANTS[name])]
    if name in ("spaces", "one unknown word", "words"):
        pairs.append((GIANTS[name], "a document"))
    for query, document in pairs:
        started, used = time.perf_counter(), time.process_time()
        (score,) = family.score(query, [document], timeout_s=60)
        # the lesser: on a busy machine the clock runs on without us
        assert min(time.perf_counter() - started, time.process_time() - used) < MAX_PAIR_S
        assert math.isfinite(score)


@pytest.mark.parametrize("name", ["spaces", "one unknown word", "marks out of order"])
def test_windows_over_few_tokens_take_no_time(name: str) -> None:
    """Reading in windows takes all of a text; a million characters may still be one window."""
    with RerankEngine(str(GOLDEN / "xlmr"), device="cpu", long_documents="window") as engine:
        started, used = time.perf_counter(), time.process_time()
        (score,) = engine.score("a query", [GIANTS[name]], timeout_s=60)
        assert min(time.perf_counter() - started, time.process_time() - used) < MAX_PAIR_S
        assert math.isfinite(score)
