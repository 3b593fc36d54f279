"""Documents that fit a budget of tokens, whatever they are and however they are counted."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bge_rerank_integrations.context.selection import Kept, within_budget
from bge_rerank_integrations.errors import ConfigurationError


def fit(texts: list[str], *how: Any, cut: bool = False) -> list[tuple[int, str]]:
    return fit_after([("", text) for text in texts], *how, cut=cut)


def fit_after(texts: list[tuple[str, str]], *how: Any, cut: bool = False) -> list[tuple[int, str]]:
    kept = [Kept(index, 0.0, text) for index, (_, text) in enumerate(texts)]
    taken = within_budget(kept, [before for before, _ in texts], *how, cut=cut)
    return [(it.index, it.text) for it in taken]


def words(text: str) -> int:
    return len(text.split())


def made_up(rng: random.Random, most_words: int) -> str:
    return " ".join(
        rng.choice(["a", "ship", "floats", "because.", "Water", "is\n\n", "heavy!", "水は重い。"])
        for _ in range(rng.randint(0, most_words))
    )


def test_a_budget_is_kept_and_filled_in_thousands_of_random_cases() -> None:
    rng = random.Random(0)
    for _ in range(3_000):
        budget = rng.randint(1, 80)
        # small beside the budget, or of any length
        is_small = rng.random() < 0.5
        texts = [made_up(rng, 2 if is_small else 40) for _ in range(60 if is_small else 8)]
        taken = fit(texts, budget, words, cut=rng.random() < 0.5)
        assert sum(words(text) for _, text in taken) <= budget
        assert [index for index, _ in taken] == sorted({index for index, _ in taken})
        assert all(texts[index].startswith(text) for index, text in taken)
        if is_small and sum(map(words, texts)) >= budget >= 40:
            assert sum(words(text) for _, text in taken) >= 0.95 * budget


def test_a_text_that_does_not_fit_is_left_out_and_shorter_ones_follow() -> None:
    assert fit(["a b c", "d e f", "g"], 4, words) == [(0, "a b c"), (2, "g")]


def test_where_sentences_are_cut_the_head_that_fits_stays() -> None:
    text = "Ships float. They displace water. Bread is baked."
    assert fit([text], 6, words, cut=True) == [(0, "Ships float. They displace water.")]
    assert fit([text, "It sinks."], 5, words, cut=True) == [
        (0, "Ships float. They displace water."),
    ]
    assert fit([text, "Stop."], 1, words, cut=True) == [(1, "Stop.")]
    assert fit([text], 1, words, cut=True) == []


def test_what_stands_before_a_text_counts_with_it() -> None:
    texts = [("title: Ships\n", "They float. They sink."), ("", "Stop.")]
    assert fit_after(texts, 6, words) == [(0, "They float. They sink.")]
    assert fit_after(texts, 5, words) == [(1, "Stop.")]
    assert fit_after(texts, 5, words, cut=True) == [(0, "They float."), (1, "Stop.")]


def test_a_text_without_tokens_costs_nothing() -> None:
    assert fit(["a b", "", "c"], 2, words) == [(0, "a b"), (1, "")]


def test_a_counter_that_does_not_grow_with_the_text_cannot_break_the_budget() -> None:
    rng = random.Random(1)
    text = "One. Two. Three. Four. Five."
    for _ in range(200):
        size = {text[:end]: rng.randint(0, 9) for end in range(len(text) + 1)}
        taken = fit([text], 4, size.__getitem__, cut=True)
        assert sum(size[kept] for _, kept in taken) <= 4


@pytest.mark.parametrize("answer", [-1, 2.0, True, None, "3"])
def test_a_counter_that_answers_no_count_is_named(answer: object) -> None:
    with pytest.raises(ConfigurationError, match="count_tokens must return an int of at least 0"):
        fit(["a"], 5, lambda text: answer)


def test_a_counter_that_raises_is_named() -> None:
    def broken(text: str) -> int:
        raise KeyError("no tokenizer")

    with pytest.raises(ConfigurationError, match=r"count_tokens .* raised KeyError"):
        fit(["a"], 5, broken)
