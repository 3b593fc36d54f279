from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paths import GOLDEN
from tokenizers import Tokenizer, models, pre_tokenizers

from bge_rerank_integrations import ConfigurationError, InputError, UnsupportedModelError
from bge_rerank_integrations.engine.loading.recipes import PromptTemplate
from bge_rerank_integrations.engine.tokenization.pairs import (
    CachedTokenizer,
    Layout,
    PairTokenizer,
    TokenSequence,
)
from bge_rerank_integrations.engine.tokenization.templates import (
    FrameLayout,
    PairTemplate,
)
from bge_rerank_integrations.settings import CallOptions

# reads instruction, query and passage
PROMPT = PromptTemplate(
    before="{instruction} ",
    query="{query}",
    separator=" - ",
    passage="p: {passage}",
    after=(" end",),
    instruction="Is it so?",
)
LONG = "The quick brown fox jumps over the lazy dog, wrote Ada in 1843. " * 200


@pytest.fixture
def tokenizer(xlmr: str) -> Tokenizer:
    return Tokenizer.from_file(str(Path(xlmr) / "tokenizer.json"))


def sequences(
    tokenizer: Tokenizer, *pairs: tuple[str, str], **options: Any
) -> list[list[TokenSequence]]:
    """What an encoder reads of the pairs."""
    tokenize = PairTokenizer(tokenizer, PairTemplate.from_tokenizer(tokenizer))
    return tokenize(pairs, tokenize.layout(CallOptions(**options)))


def n_start_tokens(layout: Layout) -> int:
    """Tokens that every passage begins with."""
    assert isinstance(layout, FrameLayout)
    return len(layout.frame.passage_start)


def test_the_template_is_read_off_the_checkpoint(tokenizer: Tokenizer) -> None:
    assert PairTemplate.from_tokenizer(tokenizer) == PairTemplate(
        (0,), (2, 2), (2,), passage_type=0
    )


def test_a_tokenizer_without_pairs_is_refused() -> None:
    plain = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UnsupportedModelError, match="no template for pairs"):
        PairTemplate.from_tokenizer(plain)


def test_a_pair_is_put_together_as_the_reference_does(tokenizer: Tokenizer) -> None:
    ((pair,),) = sequences(tokenizer, ("who wrote it?", "Ada wrote it."), max_length=64)
    query = tokenizer.encode("who wrote it?", add_special_tokens=False).ids
    passage = tokenizer.encode("Ada wrote it.", add_special_tokens=False).ids
    assert pair.ids.tolist() == [0, *query, 2, 2, *passage, 2]
    assert pair.passage_start == len(query) + 3


def test_only_the_passage_is_trimmed(tokenizer: Tokenizer) -> None:
    ((pair,),) = sequences(tokenizer, (LONG, LONG), max_length=64, query_max_length=20)
    assert len(pair) == 64
    assert pair.passage_start == 1 + 20 + 2
    ((default,),) = sequences(tokenizer, (LONG, LONG), max_length=64)
    assert default.passage_start == 1 + 48 + 2


def test_a_query_must_leave_room_for_a_passage(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationError, match=r"query_max_length must be at most 11 .*got 12"):
        sequences(tokenizer, ("q", "d"), max_length=16, query_max_length=12)
    ((pair,),) = sequences(tokenizer, (LONG, LONG), max_length=16)
    assert len(pair) == 16


def test_windows_cover_the_whole_passage(tokenizer: Tokenizer) -> None:
    (windows,) = sequences(tokenizer, ("who?", LONG), max_length=64, long_documents="window")
    passage = tokenizer.encode(LONG, add_special_tokens=False).ids
    room = 64 - windows[0].passage_start - 1
    parts = [window.ids[window.passage_start : -1].tolist() for window in windows]
    assert all(len(part) == room for part in parts)
    assert parts[0] == passage[:room]
    assert parts[-1] == passage[-room:]
    starts = [*range(0, len(passage) - room, room // 2), len(passage) - room]
    assert parts == [passage[start : start + room] for start in starts]


def test_one_token_more_than_fits_is_read_in_another_window(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(LONG, add_special_tokens=False).ids
    query = len(tokenizer.encode("who?", add_special_tokens=False))
    read: list[list[list[int]]] = []
    for limit in (64, 65):
        passage = tokenizer.decode(ids[: limit - 4 - query])
        (windows,) = sequences(tokenizer, ("who?", passage), max_length=64, long_documents="window")
        read.append([window.ids[window.passage_start : -1].tolist() for window in windows])
    room = 64 - 4 - query
    assert read == [[ids[:room]], [ids[:room], ids[1 : room + 1]]]


def test_a_short_passage_is_one_window(tokenizer: Tokenizer) -> None:
    pairs = [("who?", "Ada"), ("who?", "")]
    for windows in sequences(tokenizer, *pairs, max_length=64, long_documents="window"):
        assert len(windows) == 1


@pytest.mark.parametrize("long_documents", ["truncate", "window"])
def test_a_document_is_cut_where_the_call_says(tokenizer: Tokenizer, long_documents: str) -> None:
    (windows,) = sequences(
        tokenizer, ("who?", LONG), max_document_tokens=30, long_documents=long_documents
    )
    passage = tokenizer.encode(LONG, add_special_tokens=False).ids
    (pair,) = windows
    assert pair.ids[pair.passage_start : pair.passage_end].tolist() == passage[:30]


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({"max_length": 64}, 64 - 4 - 2),
        ({"max_length": 64, "max_document_tokens": 30}, 30),
        ({"max_length": 64, "max_document_tokens": 30, "long_documents": "window"}, 30),
        ({"max_length": 64, "max_document_tokens": 30, "long_documents": "refuse"}, 30),
    ],
)
def test_one_token_too_many_makes_a_document_truncated(
    tokenizer: Tokenizer, options: dict[str, Any], whole: int
) -> None:
    ids = tokenizer.encode(LONG, add_special_tokens=False).ids
    tokenize = PairTokenizer(
        tokenizer, PairTemplate.from_tokenizer(tokenizer), max_cached_tokens=10_000
    )
    pairs = [("who?", tokenizer.decode(ids[:count])) for count in (whole, whole + 1)]
    # the second time from the cache
    for _ in range(2):
        read = tokenize([*pairs, ("who?", LONG)], tokenize.layout(CallOptions(**options)))
        assert [windows[-1].document_truncated for windows in read] == [False, True, True]
        assert not any(window.query_truncated for windows in read for window in windows)
        assert all(len(window) <= 64 for windows in read for window in windows)


def test_a_decoder_tells_truncated_documents_too(tokenizer: Tokenizer) -> None:
    # tokens granted beyond max_length: the pair has room that the passage alone may not take
    template = replace(PROMPT, before="", uncounted_after=50)
    tokenize = PairTokenizer(tokenizer, template)
    layout = tokenize.layout(CallOptions(max_length=64))
    ids = tokenizer.encode(LONG, add_special_tokens=False).ids
    start = n_start_tokens(layout)
    texts = [tokenizer.decode(ids[: 64 - start + more]) for more in (0, 1)]
    read = tokenize([("who?", text) for text in texts], layout)
    assert [window.document_truncated for (window,) in read] == [False, True]


def test_a_document_in_windows_is_not_truncated(tokenizer: Tokenizer) -> None:
    (windows,) = sequences(tokenizer, ("who?", LONG), max_length=64, long_documents="window")
    assert len(windows) > 1
    assert not any(window.document_truncated for window in windows)


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("template", [PROMPT, None])
def test_a_document_can_be_cut_on_the_left(
    tokenizer: Tokenizer, template: PromptTemplate | None, limit: int | None
) -> None:
    tokenize = PairTokenizer(tokenizer, template or PairTemplate.from_tokenizer(tokenizer))
    options = CallOptions(max_length=64, max_document_tokens=limit, long_documents="truncate_left")
    (whole_pair,), (cut_pair,) = (
        tokenize([("who?", LONG)], tokenize.layout(given))[0]
        for given in (CallOptions(max_length=100_000), options)
    )
    start = n_start_tokens(tokenize.layout(options))
    passages = [pair.ids[pair.passage_start : pair.passage_end] for pair in (whole_pair, cut_pair)]
    assert passages[1][:start].tolist() == passages[0][:start].tolist()
    end = passages[1][start:].tolist()
    assert end == passages[0][-len(end) :].tolist()
    assert (len(end) == limit) if limit else (50 < len(cut_pair) <= 64 + 20)
    assert (whole_pair.document_truncated, cut_pair.document_truncated) == (False, True)
    # what fits is read as it is
    ((same,),) = tokenize([("who?", "short")], tokenize.layout(options))
    ((plain,),) = tokenize([("who?", "short")], tokenize.layout(CallOptions(max_length=64)))
    assert same.ids.tolist() == plain.ids.tolist()


def test_one_token_too_many_makes_a_query_truncated(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(LONG, add_special_tokens=False).ids
    pairs = [(tokenizer.decode(ids[:count]), "short") for count in (8, 9)]
    read = sequences(tokenizer, *pairs, query_max_length=8)
    assert [window.query_truncated for (window,) in read] == [False, True]
    assert [len(window) for (window,) in read] == [len(read[0][0])] * 2
    assert not any(window.document_truncated for (window,) in read)


def test_what_stands_before_a_document_is_no_part_of_its_limit(tokenizer: Tokenizer) -> None:
    tokenize = PairTokenizer(tokenizer, PROMPT)
    start = len(tokenizer.encode("p:", add_special_tokens=False))
    whole = tokenizer.encode(f"p: {LONG}", add_special_tokens=False).ids
    ((pair,),) = tokenize([("who?", LONG)], tokenize.layout(CallOptions(max_document_tokens=30)))
    assert pair.ids[pair.passage_start : pair.passage_end].tolist() == whole[: start + 30]


def test_a_document_that_is_too_long_is_refused_with_true_counts(tokenizer: Tokenizer) -> None:
    refusing: Any = {"max_length": 64, "long_documents": "refuse"}
    query, passage = (
        len(tokenizer.encode(text, add_special_tokens=False)) for text in ("who?", LONG)
    )
    with pytest.raises(InputError, match=f"have {query + passage + 4} tokens .* reads 64"):
        sequences(tokenizer, ("who?", LONG), **refusing)
    ids = tokenizer.encode(LONG, add_special_tokens=False).ids
    fitting, longer = (tokenizer.decode(ids[: limit - 4 - query]) for limit in (64, 65))
    ((pair,),) = sequences(tokenizer, ("who?", fitting), **refusing)
    assert len(pair) == 64
    with pytest.raises(InputError, match=r"have 65 tokens .* reads 64"):
        sequences(tokenizer, ("who?", longer), **refusing)


def test_a_query_that_would_be_cut_is_refused_too(tokenizer: Tokenizer) -> None:
    refusing: Any = {"max_length": 64, "query_max_length": 8, "long_documents": "refuse"}
    ids = tokenizer.encode(LONG, add_special_tokens=False).ids
    for count in (len(ids), 9):
        query = tokenizer.decode(ids[:count])
        with pytest.raises(InputError, match=f"the query has {count} tokens .* reads 8 of a query"):
            sequences(tokenizer, (query, "short"), **refusing)
    assert sequences(tokenizer, (tokenizer.decode(ids[:8]), "short"), **refusing)


def test_calls_with_different_options_share_the_cache(tokenizer: Tokenizer) -> None:
    tokenize = PairTokenizer(
        tokenizer, PairTemplate.from_tokenizer(tokenizer), max_cached_tokens=10_000
    )
    alone = {
        limit: sequences(tokenizer, ("who?", LONG), max_length=limit)[0][0].ids.tolist()
        for limit in (64, 32)
    }
    for limit in (64, 32, 64, 32):
        ((pair,),) = tokenize([("who?", LONG)], tokenize.layout(CallOptions(max_length=limit)))
        assert pair.ids.tolist() == alone[limit]
    assert tokenize.cache.hits == 4


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 48},
        {"query_max_length": 20},
        {"max_document_tokens": 5},
        {"long_documents": "window"},
        {"instruction": "Which one?"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_changes_the_next_call_and_not_those_after_it(
    tokenizer: Tokenizer, options: dict[str, Any]
) -> None:
    def ids(tokenize: PairTokenizer, asked: CallOptions) -> list[list[int]]:
        (windows,) = tokenize([(LONG, LONG)], tokenize.layout(asked))
        return [window.ids.tolist() for window in windows]

    plain = CallOptions(max_length=64)
    changed = replace(plain, **options)
    expected = ids(PairTokenizer(tokenizer, PROMPT), changed)
    tokenize = PairTokenizer(tokenizer, PROMPT)
    before = ids(tokenize, plain)
    assert ids(tokenize, changed) == expected != before
    assert ids(tokenize, plain) == before


def test_instructions_of_many_calls_are_not_all_remembered(tokenizer: Tokenizer) -> None:
    def layouts() -> int:
        return sum(type(thing) is FrameLayout for thing in gc.get_objects())

    tokenize = PairTokenizer(tokenizer, PROMPT)
    before = layouts()
    for number in range(500):
        tokenize.layout(CallOptions(instruction=f"Which one of {number}?"))
    assert layouts() - before < 100


def test_an_encoder_takes_no_instruction(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationError, match=r"instruction must be None .* got 'Find it'"):
        sequences(tokenizer, ("q", "d"), instruction="Find it")


def test_a_prompt_holds_instruction_and_texts_as_they_are() -> None:
    template = PromptTemplate(
        before="<{instruction}>",
        query="q: {query}!",
        instructed_query="as {instruction} q: {query}!",
        separator="|",
        passage="p: {passage}",
        after=("{instruction}",),
        instruction="own",
    )

    def frame(instruction: str | None) -> tuple[str, str, str]:
        made = template.frame(instruction, lambda text: np.array([*text.encode()], np.int32))
        asked = "{passage}".join(made.around_query)
        return bytes(made.before.tolist()).decode(), asked, bytes(made.after.tolist()).decode()

    assert frame(None) == ("<own>", "q: {passage}!", "own")
    assert frame("{query}") == ("<{query}>", "as {query} q: {passage}!", "{query}")


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
@settings(deadline=None)
def test_remembered_texts_give_the_same_ids(texts: list[str], limits: list[int | None]) -> None:
    """Whatever length they were asked for before."""
    tokenizer = Tokenizer.from_file(str(GOLDEN / "xlmr/tokenizer.json"))
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


def test_a_query_may_leave_a_document_one_token(tokenizer: Tokenizer) -> None:
    """It is then read token by token in windows."""
    limits: Any = {"max_length": 16, "query_max_length": 11}
    document = "the quick brown fox jumps"
    ids = tokenizer.encode(document, add_special_tokens=False).ids
    (windows,) = sequences(tokenizer, (LONG, document), long_documents="window", **limits)
    read = [one.ids[one.passage_start : one.passage_end].tolist() for one in windows]
    assert read == [[token] for token in ids]
    with pytest.raises(ConfigurationError, match="query_max_length must be at most 11"):
        sequences(tokenizer, (LONG, document), max_length=16, query_max_length=12)
