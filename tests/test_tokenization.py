from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from bge_rerank_integrations import ConfigurationError, UnsupportedModelError
from bge_rerank_integrations.engine.tokenization.pairs import PairTemplate, PairTokenizer
from bge_rerank_integrations.engine.tokenization.token_cache import CachedTokenizer

LONG = "The quick brown fox jumps over the lazy dog, wrote Ada in 1843. " * 200


@pytest.fixture
def tokenizer(xlmr: str) -> Tokenizer:
    return Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json"))


def test_the_template_is_read_off_the_checkpoint(tokenizer: Tokenizer) -> None:
    assert PairTemplate.of(tokenizer) == PairTemplate((0,), (2, 2), (2,), passage_type=0)


def test_a_tokenizer_without_pairs_is_refused() -> None:
    plain = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UnsupportedModelError, match="no template for pairs"):
        PairTemplate.of(plain)


def test_a_pair_is_put_together_as_the_reference_does(tokenizer: Tokenizer) -> None:
    (pair,) = PairTokenizer(tokenizer, max_length=64)([("who wrote it?", "Ada wrote it.")])[0]
    query = tokenizer.encode("who wrote it?", add_special_tokens=False).ids
    passage = tokenizer.encode("Ada wrote it.", add_special_tokens=False).ids
    assert pair.ids.tolist() == [0, *query, 2, 2, *passage, 2]
    assert pair.passage_start == len(query) + 3


def test_only_the_passage_is_trimmed(tokenizer: Tokenizer) -> None:
    tokenize = PairTokenizer(tokenizer, max_length=64, query_max_length=20)
    (pair,) = tokenize([(LONG, LONG)])[0]
    assert len(pair) == 64
    assert pair.passage_start == 1 + 20 + 2
    (default,) = PairTokenizer(tokenizer, max_length=64)([(LONG, LONG)])[0]
    assert default.passage_start == 1 + 48 + 2


def test_a_query_must_leave_room_for_a_passage(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationError, match=r"query_max_length must be at most 11 .*got 12"):
        PairTokenizer(tokenizer, max_length=16, query_max_length=12)
    (pair,) = PairTokenizer(tokenizer, max_length=16)([(LONG, LONG)])[0]
    assert len(pair) == 16


def test_windows_cover_the_whole_passage(tokenizer: Tokenizer) -> None:
    tokenize = PairTokenizer(tokenizer, max_length=64, windows=True)
    windows = tokenize([("who?", LONG)])[0]
    passage = tokenizer.encode(LONG, add_special_tokens=False).ids
    room = 64 - windows[0].passage_start - 1
    parts = [window.ids[window.passage_start : -1].tolist() for window in windows]
    assert all(len(part) == room for part in parts)
    assert parts[0] == passage[:room]
    assert parts[-1] == passage[-room:]
    starts = [*range(0, len(passage) - room, room // 2), len(passage) - room]
    assert parts == [passage[start : start + room] for start in starts]


def test_a_short_passage_is_one_window(tokenizer: Tokenizer) -> None:
    tokenize = PairTokenizer(tokenizer, max_length=64, windows=True)
    assert [len(windows) for windows in tokenize([("who?", "Ada"), ("who?", "")])] == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        LONG * 20,
        "x" * 300_000,
        "語" * 300_000,
        " " * 300_000 + LONG,
        " \n\t" * 900 + "end",
        "\n" + LONG,
    ],
)
def test_a_text_cut_before_tokenization_starts_the_same(tokenizer: Tokenizer, text: str) -> None:
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    (head,) = CachedTokenizer(tokenizer).encode([text], 100)
    assert len(whole) > 0
    assert head.tolist() == whole[:100]


def test_a_text_of_spaces_has_no_tokens(tokenizer: Tokenizer) -> None:
    (head,) = CachedTokenizer(tokenizer).encode([" " * 300_000], 100)
    assert head.tolist() == []


@pytest.mark.parametrize("max_tokens", range(1, 30))
def test_a_word_is_not_cut_before_tokenization(max_tokens: int) -> None:
    """A token may stand for more characters than were read for it."""
    words = {"incomprehensibilities": 0, "a": 1, "[UNK]": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for short in range(40):
        text = "a " * short + "incomprehensibilities " * 3_000
        (head,) = CachedTokenizer(tokenizer).encode([text], max_tokens)
        assert head.tolist() == [*[1] * short, *[0] * max_tokens][:max_tokens]


@given(
    st.lists(st.text(max_size=20), max_size=8),
    st.lists(st.none() | st.integers(1, 10), min_size=1, max_size=4),
)
@example(["some words to cut"], [2, None, 3])
def test_remembered_texts_give_the_same_ids(texts: list[str], limits: list[int | None]) -> None:
    """Whatever length they were asked for before."""
    tokenizer = Tokenizer.from_file(str(Path(__file__).parent / "golden/xlmr/tokenizer.json"))
    cached = CachedTokenizer(tokenizer, max_cached_tokens=170)
    fresh = CachedTokenizer(tokenizer, max_cached_tokens=0)
    for limit in [*limits, *limits]:
        for ids, again in zip(cached.encode(texts, limit), fresh.encode(texts, limit), strict=True):
            np.testing.assert_array_equal(ids, again)


def test_the_cache_is_bounded_and_forgets_the_oldest(tokenizer: Tokenizer) -> None:
    cached = CachedTokenizer(tokenizer, max_cached_tokens=170)
    cached.encode(["first of all"], None)
    cached.encode(["first of all"], None)
    assert cached.hits == 1
    cached.encode([f"another text, number {number}" for number in range(10)], None)
    cached.encode(["first of all"], None)
    assert cached.hits == 1


def test_the_cache_forgets_what_was_used_least_recently(tokenizer: Tokenizer) -> None:
    # a text of one token takes about 400 bytes, and a token of the bound is 12
    cached = CachedTokenizer(tokenizer, max_cached_tokens=3 * 36)
    for text in ("a", "b", "c", "a", "d"):
        cached.encode([text], None)
    assert (cached.hits, cached.misses) == (1, 4)
    cached.encode(["a"], None)
    assert cached.hits == 2
    cached.encode(["b"], None)
    assert cached.hits == 2
