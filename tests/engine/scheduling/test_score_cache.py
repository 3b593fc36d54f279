"""Scores that are remembered: exact, of one model and one reading of the texts, bounded."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest
from callers import PATIENCE_S, expected, in_thread, wait_until
from conftest import GOLDEN
from fakes import FakeScorer, Logits, MakeEngine, TokenSequence, digests, text_of

from bge_rerank_integrations import EngineClosedError, NonFiniteScoreError, RerankEngine
from bge_rerank_integrations.engine.scheduling.score_cache import (
    CachedScore,
    ScoreCache,
    keys_of,
)
from bge_rerank_integrations.settings import EngineConfig

ENTRY = CachedScore(np.zeros(1, np.float32).tobytes(), 1_000, False, False)
DOCUMENTS = [f"document {number}" for number in range(10)]


def sequences(scorer: FakeScorer) -> int:
    """How many sequences a scorer was given."""
    return sum(map(len, scorer.batches))


def hits_and_misses(engine: RerankEngine) -> tuple[int, int]:
    stats = engine.stats()
    return stats.score_cache_hits, stats.score_cache_misses


def test_it_is_off_by_default(make_engine: MakeEngine) -> None:
    scorer = FakeScorer()
    engine = make_engine(scorer)
    for _ in range(2):
        engine.score("query", DOCUMENTS)

    assert EngineConfig().max_cached_scores == 0
    assert sequences(scorer) == 20
    assert hits_and_misses(engine) == (0, 0)


def test_a_replayed_trace_scores_only_what_is_new(make_engine: MakeEngine) -> None:
    """A hundred queries over one collection, of which forty were asked before."""
    rng = random.Random(0)
    queries = [f"query {number}" for number in range(60)]
    trace = queries + rng.choices(queries, k=40)
    candidates = {query: rng.sample(range(500), 10) for query in queries}
    scorer = FakeScorer()
    engine = make_engine(scorer, max_cached_scores=10_000)

    for query in trace:
        documents = [f"passage {number}" for number in candidates[query]]
        assert engine.score(query, documents) == expected(query, documents)

    assert sequences(scorer) == engine.stats().sequences == 600
    assert hits_and_misses(engine) == (400, 600)
    assert engine.stats().pairs == 1_000


async def test_known_and_new_pairs_keep_the_callers_order(make_engine: MakeEngine) -> None:
    scorer = FakeScorer()
    engine = make_engine(scorer, max_cached_scores=100)
    engine.score("query", ["b", "d"])
    mixed = ["a", "b", "c", "b", "d", "e", "a"]

    scores = await engine.ascore("query", mixed)

    assert scores == expected("query", mixed)
    assert sequences(scorer) == 2 + 3
    assert hits_and_misses(engine) == (2, 5)


def test_a_failing_document_is_still_named_by_its_place(make_engine: MakeEngine) -> None:
    def answer(batch: Sequence[TokenSequence]) -> Logits:
        logits = digests(batch)
        logits[[text_of(pair) == "nan" for pair in batch]] = np.nan
        return logits

    engine = make_engine(FakeScorer(answer), max_cached_scores=100)
    engine.score("query", ["a", "b"])

    for _ in range(2):
        with pytest.raises(NonFiniteScoreError, match="document 3"):
            engine.score("query", ["a", "c", "b", "nan"])
    # nothing of a failed call is remembered
    assert hits_and_misses(engine) == (4, 6)


@pytest.mark.parametrize(
    ("options", "is_read_anew"),
    [
        ({"normalize": True}, False),
        ({"timeout_s": 30.0}, False),
        ({"max_length": 24}, True),
        ({"query_max_length": 3}, True),
        ({"max_document_tokens": 4}, True),
        ({"long_documents": "truncate_left"}, True),
        ({"long_documents": "window"}, True),
    ],
)
def test_an_option_that_changes_what_is_read_has_scores_of_its_own(
    xlmr: str, options: Any, is_read_anew: bool
) -> None:
    document = "a long document about ships " * 10
    settings: Any = {"device": "cpu", "dtype": "float32", "max_length": 40}
    with (
        RerankEngine(xlmr, max_cached_scores=10, **settings) as engine,
        RerankEngine(xlmr, **settings) as plain,
    ):
        engine.score("how do ships float", [document])
        for _ in range(2):
            scores = engine.score("how do ships float", [document], **options)
            fresh = plain.score("how do ships float", [document], **options)
            assert scores == pytest.approx(fresh, abs=1e-6)
            assert scores.usage.pair_tokens == fresh.usage.pair_tokens
            assert scores.usage.truncated == fresh.usage.truncated
            assert scores.usage.query_truncated == fresh.usage.query_truncated
        assert scores.total_tokens == 0
        assert hits_and_misses(engine) == ((1, 2) if is_read_anew else (2, 1))


def test_a_cut_query_is_told_of_its_own_pairs_only(xlmr: str) -> None:
    long_query = "ships " * 60
    with RerankEngine(xlmr, device="cpu", max_length=40, max_cached_scores=10) as engine:
        engine.score_pairs([(long_query, "water"), ("short", "water")])

        assert engine.score(long_query, ["water"]).usage.query_truncated
        assert not engine.score("short", ["water"]).usage.query_truncated
        assert hits_and_misses(engine) == (2, 2)


def test_every_layer_is_remembered() -> None:
    pairs = [("query", "one document"), ("query", "another")]
    settings: Any = {"device": "cpu", "dtype": "float32", "cutoff_layers": (2, 3)}
    with RerankEngine(str(GOLDEN / "minicpm"), max_cached_scores=10, **settings) as engine:
        scored = engine.score_layers(pairs)

        assert engine.score_layers(pairs) == scored
        assert engine.score_pairs(pairs) == scored[3] != scored[2]
        assert hits_and_misses(engine) == (4, 2)
        assert engine.stats().sequences == 2


def test_models_share_no_score(make_engine: MakeEngine) -> None:
    other = FakeScorer(lambda batch: digests(batch) + 1)
    make_engine(FakeScorer(), max_cached_scores=100).score("query", DOCUMENTS)

    scores = make_engine(other, max_cached_scores=100).score("query", DOCUMENTS)

    assert scores == [score + 1 for score in expected("query", DOCUMENTS)]


def test_a_closed_engine_answers_nothing_that_it_remembers(make_engine: MakeEngine) -> None:
    engine = make_engine(max_cached_scores=100)
    engine.score("query", DOCUMENTS)
    engine.close()

    with pytest.raises(EngineClosedError):
        engine.score("query", DOCUMENTS)


def test_a_remembered_call_needs_no_place_in_the_queue(make_engine: MakeEngine) -> None:
    scorer = FakeScorer()
    engine = make_engine(scorer, max_cached_scores=100, max_queued_pairs=10)
    engine.score("query", DOCUMENTS)
    scorer.gate = Event()
    waiting = in_thread(engine.score, "other", DOCUMENTS)
    wait_until(lambda: engine.stats().queued_pairs == 10)

    assert engine.score("query", DOCUMENTS) == expected("query", DOCUMENTS)

    assert not waiting.done()
    scorer.gate.set()
    assert waiting.result(PATIENCE_S) == expected("other", DOCUMENTS)


def test_many_threads_get_their_own_scores(make_engine: MakeEngine) -> None:
    # smaller than what is asked for, so that entries come and go
    engine = make_engine(max_cached_scores=50)

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(30):
            query, documents = f"query {rng.randrange(8)}", rng.choices(DOCUMENTS, k=6)
            assert engine.score(query, documents) == expected(query, documents)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))

    hits, misses = hits_and_misses(engine)
    assert hits > 0
    assert engine.stats().sequences == misses


# --- the cache itself --------------------------------------------------------------------------


def test_the_least_recently_used_goes_first() -> None:
    cache = ScoreCache(2)
    a, b, c = keys_of("layout", [("q", "a"), ("q", "b"), ("q", "c")])
    cache.remember([(a, ENTRY), (b, ENTRY)])
    cache.look_up([a])
    cache.remember([(c, ENTRY)])

    assert cache.look_up([a, b, c]) == [ENTRY, None, ENTRY]


def test_keys_tell_texts_and_layouts_apart() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("1 a", "b"), ("1", " ab")]
    keys = keys_of("one", pairs) + keys_of("two", pairs)

    assert len(set(keys)) == 12
    assert keys_of("one", pairs) == keys[:6]


def test_an_entry_takes_what_the_setting_says() -> None:
    cache = ScoreCache(5_000)
    tracemalloc.start()
    for number in range(6_000):
        [key] = keys_of("layout", [("query", f"{number} " * 100)])
        cache.remember([(key, CachedScore(np.zeros(1, np.float32).tobytes(), 300, False, False))])
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert taken / 5_000 < 450
