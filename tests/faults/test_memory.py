"""Inputs that are very large, or never all there at one time."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import assert_works
from fakes import FakeScorer, MakeEngine, digest, recorded_engine
from tokenizers import Encoding, Tokenizer

from bge_rerank_integrations.engine.tokenization.pairs import CachedTokenizer

MILLION = 1_000_000


def test_a_stream_of_a_million_pairs_is_never_all_in_memory(make_engine: MakeEngine) -> None:
    """The pairs are counted while they live: no more than the chunks that wait."""

    class Text(str):
        __slots__ = ("__weakref__",)

    alive: weakref.WeakSet[Text] = weakref.WeakSet()
    most = 0

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal most
        for number in range(MILLION):
            if number % 1_000 == 0:
                document: str = Text(number)
                alive.add(document)  # type: ignore[arg-type]
                most = max(most, len(alive))
            else:
                document = "abc"
            yield "q", document

    engine = make_engine(FakeScorer(), max_batch_tokens=16_384)
    scores = engine.score_pairs(pairs())
    assert len(scores) == MILLION
    assert scores[5_000] == digest("q", "5000")
    assert scores[5_001] == digest("q", "abc")
    # 1 in 1,000 of three chunks of 2,048 pairs, and of the one that is read
    assert most <= 12
    assert_works(engine)


def test_answered_calls_are_let_go_long_before_their_deadlines(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for number in range(1_000):
        engine.score("q", [f"{number}"], timeout_s=3_600)
    gc.collect()
    # a deadline's job stays until as many more have come as are waiting, and at least 64
    assert sum(type(each).__name__ == "Job" for each in gc.get_objects()) < 200


def test_a_giant_document_makes_no_giant_batch(xlmr: str) -> None:
    normal = [f"document {number}: " + "the panda eats bamboo " * 30 for number in range(40)]
    giant = "giant " * (MILLION // 6)
    engine, scorer = recorded_engine(xlmr, device="cpu", dtype="float32", max_batch_tokens=1_024)
    with engine:
        alone = engine.score("q", normal)
        together = engine.score("q", [*normal[:20], giant, *normal[20:]])
    assert together[:20] + together[21:] == pytest.approx(alone, abs=1e-5)
    # what one forward pass computes on is what one takes in memory
    assert max(sum(map(len, batch)) for batch in scorer.batches) <= 1_024


def test_a_giant_document_takes_no_more_memory_than_its_head(xlmr: str) -> None:
    """A batch of 40 ordinary documents with a giant among them, against one without."""
    tokenizer = CachedTokenizer(Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json")))
    giant = "giant " * (MILLION // 6)
    peaks = []
    for documents in (["normal " * 300] * 2, ["normal " * 301, giant]):
        gc.collect()
        tracemalloc.start()
        tokenizer.encode(documents, 512)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000


def test_what_is_remembered_of_a_text_is_no_more_than_its_head(xlmr: str) -> None:
    """Texts of few tokens are read far beyond their heads: the rest must not stay in memory."""
    tokenizer = CachedTokenizer(Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json")))
    (ids,) = tokenizer.encode([" " * 50_000 + "word " * 50_000], 16)
    assert ids.base is None
    assert len(ids) == 16


@pytest.mark.parametrize(
    ("text", "count"),
    [("{}", 2_000), ("é{}", 2_000), ("text " * 400 + "{}", 200), ("😀" * 2_000 + "{}", 200)],
)
def test_the_token_cache_is_bounded_in_bytes(xlmr: str, text: str, count: int) -> None:
    """Short texts cost more than their tokens; texts that are not ASCII more than their length."""
    limit = 200_000
    tokenizer = CachedTokenizer(
        Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json")), max_cached_tokens=limit // 12
    )
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        tokenizer.encode([text.format(number)], 512)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.3 * limit < used < 1.3 * limit
    assert 0 < tokenizer._cached_bytes <= limit


@pytest.mark.parametrize("name", ["xlmr", "gemma"])
def test_a_text_in_parts_has_the_tokens_of_the_whole(name: str, xlmr: str) -> None:
    raw = Tokenizer.from_file(str(Path(xlmr).parent / name / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    text = "The quick brown fox jumps over the lazy dog,  wrote Ada in 1843.\n" * 1_500
    (ids,) = CachedTokenizer(raw).encode([text], None)
    assert ids.tolist() == raw.encode(text, add_special_tokens=False).ids


def test_a_long_text_holds_up_other_threads_for_one_part_at_most(xlmr: str) -> None:
    """Whatever becomes Python objects at one time does so under the interpreter's lock."""
    raw = Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json"))
    lengths: list[int] = []

    class Counting:
        def encode_batch_fast(self, texts: list[str], **settings: bool) -> list[Encoding]:
            lengths.extend(map(len, texts))
            encodings: list[Encoding] = raw.encode_batch_fast(texts, **settings)
            return encodings

    CachedTokenizer(Counting()).encode(["word " * 40_000], None)  # type: ignore[arg-type]
    assert sum(lengths) == 200_000
    assert max(lengths) <= 32_768


def test_a_text_without_spaces_is_read_to_its_end(xlmr: str) -> None:
    tokenizer = CachedTokenizer(Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json")))
    (ids,) = tokenizer.encode(["x" * 100_000], None)
    assert len(ids) >= 100_000
