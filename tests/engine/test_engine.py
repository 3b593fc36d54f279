"""The engine as its users hold it."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import processes
import pytest
from callers import engine_threads
from fakes import LOAD, fake_model, recorded_engine

from bge_rerank_integrations import (
    ConfigurationError,
    DeadlineError,
    EngineClosedError,
    EngineConfig,
    InputError,
    RerankEngine,
    Reranker,
)

QUERY = "what is a panda?"
DOCUMENTS = [f"document {number}: the panda eats bamboo {'often ' * number}" for number in range(9)]


def test_rerank_orders_by_score_and_tells_what_it_read(engine: RerankEngine) -> None:
    ranking = engine.rerank(QUERY, DOCUMENTS, top_n=4)
    scores = engine.score(QUERY, DOCUMENTS)
    expected = sorted(range(len(DOCUMENTS)), key=lambda index: -scores[index])[:4]
    assert [document.index for document in ranking] == expected
    assert [document.score for document in ranking] == [scores[index] for index in expected]
    assert all(type(document.score) is float for document in ranking)
    assert ranking.model == engine.model
    assert ranking.total_tokens > len(DOCUMENTS) * 10


@pytest.mark.parametrize("max_queued_pairs", [100, 4])
async def test_what_was_read_of_each_document_is_told(xlmr: str, max_queued_pairs: int) -> None:
    """In one job, and in the several of a stream."""
    documents = ["bamboo", "panda " * 100, "a panda", "panda " * 100, "panda " * 99]
    config = EngineConfig(xlmr, device="cpu", dtype="float32", max_queued_pairs=max_queued_pairs)
    pairs = [(QUERY, document) for document in documents]
    with RerankEngine(config, max_length=64) as engine:
        alone = [engine.score(QUERY, [document]).total_tokens for document in documents]
        answers = [engine.score_pairs(pairs), await engine.ascore_pairs(pairs)]
        if max_queued_pairs > len(pairs):
            answers += [engine.score(QUERY, documents), await engine.ascore(QUERY, documents)]
        for scores in answers:
            assert list(scores.usage.pair_tokens) == alone
            assert list(scores.usage.truncated) == [1, 3, 4]
            assert scores.usage.truncated_documents == 3
            assert not scores.usage.query_truncated
        windows = engine.score(QUERY, documents[:2], long_documents="window").usage
        assert windows.truncated_documents == 0
        assert sum(windows.pair_tokens) == windows.total_tokens > 64 + alone[0]
        assert engine.score(QUERY, documents[:1], query_max_length=2).usage.query_truncated
        assert engine.rerank(QUERY, documents, top_n=1).usage.truncated_documents == 3


def test_an_engine_is_a_reranker(engine: RerankEngine) -> None:
    assert isinstance(engine, Reranker)


def test_score_threshold_is_on_the_scale_reported(xlmr: str) -> None:
    with RerankEngine(xlmr, device="cpu", dtype="float32") as normalized:
        scores = normalized.score(QUERY, DOCUMENTS)
        threshold = sorted(scores)[4]
        kept = normalized.rerank(QUERY, DOCUMENTS, score_threshold=threshold)
        assert len(kept) == 5
        assert all(0 < document.score < 1 for document in kept)


def test_nothing_to_rank_is_ordinary(engine: RerankEngine) -> None:
    nothing = engine.rerank(QUERY, [])
    assert (nothing.documents, nothing.total_tokens, nothing.model) == ((), 0, engine.model)
    assert engine.score(QUERY, []) == []
    assert engine.score_pairs([]) == []


def test_empty_texts_are_scored(engine: RerankEngine) -> None:
    assert len(engine.rerank("", ["", " ", "\n"])) == 3


def test_equal_documents_get_equal_scores(engine: RerankEngine) -> None:
    scores = engine.score(QUERY, [DOCUMENTS[0], *DOCUMENTS, DOCUMENTS[0]])
    assert scores[0] == scores[1] == scores[-1]


@pytest.mark.parametrize("top_n", [0, -1, "2"])
def test_a_wrong_top_n_is_refused_before_anything_is_scored(
    engine: RerankEngine, top_n: int
) -> None:
    before = engine.stats().pairs
    with pytest.raises(ConfigurationError, match="top_n"):
        engine.rerank(QUERY, DOCUMENTS, top_n=top_n)
    assert engine.stats().pairs == before


def test_a_wrong_document_is_named(engine: RerankEngine) -> None:
    with pytest.raises(InputError, match="document 1 must be a string, got NoneType"):
        engine.rerank(QUERY, ["fine", None])  # type: ignore[list-item]


async def test_sync_and_async_agree(engine: RerankEngine) -> None:
    pairs = [(QUERY, document) for document in DOCUMENTS]
    assert await engine.arerank(QUERY, DOCUMENTS, top_n=3) == engine.rerank(
        QUERY, DOCUMENTS, top_n=3
    )
    assert await engine.ascore(QUERY, DOCUMENTS) == engine.score(QUERY, DOCUMENTS)
    assert await engine.ascore_pairs(pairs) == engine.score_pairs(pairs)


async def test_waiting_holds_no_thread(engine: RerankEngine) -> None:
    before = threading.active_count()
    calls = [asyncio.create_task(engine.ascore(QUERY, DOCUMENTS)) for _ in range(50)]
    await asyncio.sleep(0)
    assert threading.active_count() == before
    expected = await engine.ascore(QUERY, DOCUMENTS)
    for scores in await asyncio.gather(*calls):
        assert scores == pytest.approx(expected, abs=1e-5)


async def test_a_cancelled_task_leaves_the_queue(engine: RerankEngine) -> None:
    task = asyncio.create_task(engine.ascore(QUERY, DOCUMENTS * 50))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.stats().queued_pairs == 0


def test_a_stream_of_pairs_is_read_as_it_is_needed(xlmr: str) -> None:
    read = 0

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal read
        for number in range(60):
            # two chunks of 4 pairs wait at one time
            assert read - answered() <= 8
            read += 1
            yield QUERY, f"document {number}"

    with RerankEngine(xlmr, device="cpu", dtype="float32", max_queued_pairs=8) as engine:

        def answered() -> int:
            return engine.stats().pairs

        scores = engine.score_pairs(pairs())
        expected = engine.score(QUERY, [f"document {number}" for number in range(8)])
    assert len(scores) == 60
    assert scores[:8] == pytest.approx(expected, abs=1e-6)


def test_a_wrong_pair_late_in_a_stream_is_named(xlmr: str) -> None:
    with RerankEngine(xlmr, device="cpu", max_queued_pairs=4) as engine:
        with pytest.raises(InputError, match="the document of pair 11 must be a string"):
            engine.score_pairs([(QUERY, "a")] * 11 + [(QUERY, 5)])  # type: ignore[list-item]
        assert engine.stats().queued_pairs == 0


def test_progress_is_shown_on_request(
    engine: RerankEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.score_pairs([(QUERY, "a")])
    assert capsys.readouterr().err == ""
    engine.score_pairs([(QUERY, "a")], show_progress=True)
    assert "1/1" in capsys.readouterr().err


def test_a_call_may_have_a_deadline(engine: RerankEngine) -> None:
    documents = [f"{number} " + "panda " * 400 for number in range(400)]
    with pytest.raises(DeadlineError):
        engine.rerank(QUERY, documents, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        engine.score_pairs([(QUERY, document) for document in documents], timeout_s=0.01)
    assert len(engine.rerank(QUERY, DOCUMENTS, timeout_s=60)) == len(DOCUMENTS)


def test_many_threads_get_their_own_answers(engine: RerankEngine) -> None:
    expected = engine.score(QUERY, DOCUMENTS)

    def call(number: int) -> None:
        part = DOCUMENTS[number % 9 :]
        assert engine.score(QUERY, part) == pytest.approx(expected[number % 9 :], abs=1e-5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(64)))


def test_documents_too_long_are_truncated_or_read_in_windows(xlmr: str) -> None:
    needle = "the giant panda eats bamboo"
    haystack = "nothing of interest here. " * 200
    with RerankEngine(xlmr, device="cpu", dtype="float32", max_length=64) as head_only:
        whole = head_only.with_options(long_documents="window")
        without, hidden = head_only.score(QUERY, [haystack, haystack + needle])
        assert without == pytest.approx(hidden, abs=1e-6)
        without, hidden = whole.score(QUERY, [haystack, haystack + needle])
        assert without != pytest.approx(hidden, abs=1e-6)
        assert whole.score(QUERY, [needle]) == pytest.approx(head_only.score(QUERY, [needle]))
        with pytest.raises(InputError, match=r"document 1: .* reads 64: shorten") as caught:
            head_only.score(QUERY, [needle, haystack], long_documents="refuse")
        assert caught.value.index == 1
        assert head_only.stats().pairs == 6


def test_several_devices_serve_one_queue(xlmr: str, engine: RerankEngine) -> None:
    with RerankEngine(xlmr, device=("cpu", "cpu"), dtype="float32", normalize=False) as pair:
        assert pair.device == "cpu,cpu"
        assert pair.score(QUERY, DOCUMENTS) == pytest.approx(
            engine.score(QUERY, DOCUMENTS), abs=1e-5
        )


def test_equal_settings_share_a_model_from_any_thread(xlmr: str) -> None:
    before = engine_threads()
    # a config of its own: other tests share the default one
    config = EngineConfig(xlmr, max_cached_tokens=4_321)
    with ThreadPoolExecutor(8) as threads:
        engines = list(threads.map(lambda _: RerankEngine.shared(config, max_length=99), range(16)))
    shared = engines[0]
    assert set(engines) == {shared}
    assert len(engine_threads() - before) == 3
    others = [
        RerankEngine.shared(xlmr, max_cached_tokens=4_321, max_length=98, queue_timeout_s=1),
        RerankEngine.shared(config, normalize=False),
        shared.with_options(normalize=False),
    ]
    assert len(engine_threads() - before) == 3
    assert shared not in others
    shared.close()
    assert not any(engine.is_alive for engine in others)
    with RerankEngine.shared(config, max_length=99) as fresh:
        assert fresh != shared


def test_every_other_config_is_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOAD, lambda config: fake_model())
    others: dict[str, Any] = {
        "model": "other",
        "revision": "v1",
        "recipe": "qwen3-reranker",
        "device": ("cpu", "cpu"),
        "dtype": "float32",
        "cutoff_layers": (3,),
        "compress_ratio": 2,
        "compress_layers": (1,),
        "cache_folder": "elsewhere",
        "local_files_only": True,
        "max_batch_tokens": 512,
        "max_cached_tokens": 0,
        "max_queued_pairs": 7,
    }
    assert list(others) == [field.name for field in fields(EngineConfig)]
    with RerankEngine.shared("one") as first:
        for name, value in others.items():
            config = replace(EngineConfig("one"), **{name: value})
            with RerankEngine.shared(config) as engine:
                assert engine.config == config
                assert engine == RerankEngine.shared(config) != first
        assert first.is_alive
        assert first == RerankEngine.shared("one")


def test_engines_with_other_options_share_the_model(xlmr: str) -> None:
    probabilities = RerankEngine.shared(xlmr, max_length=97)
    logits = RerankEngine.shared(xlmr, max_length=97, normalize=False)
    assert logits != probabilities
    assert logits == RerankEngine.shared(xlmr, max_length=97, normalize=False)
    assert (logits.options.normalize, probabilities.options.normalize) == (False, True)
    done = probabilities.stats().pairs
    sigmoid = [1 / (1 + math.exp(-logit)) for logit in logits.score(QUERY, DOCUMENTS)]
    assert probabilities.score(QUERY, DOCUMENTS) == pytest.approx(sigmoid, abs=1e-12)
    assert logits.stats().pairs == probabilities.stats().pairs == done + 2 * len(DOCUMENTS)
    assert pickle.loads(pickle.dumps(logits)) == logits
    logits.close()
    assert not probabilities.is_alive
    with pytest.raises(EngineClosedError):
        probabilities.score(QUERY, DOCUMENTS)
    with RerankEngine.shared(xlmr, max_length=97) as fresh:
        assert fresh.is_alive


async def test_a_call_may_override_every_option(engine: RerankEngine) -> None:
    short: Any = {"max_length": 16, "normalize": True}
    handle = engine.with_options(**short)
    pairs = [(QUERY, document) for document in DOCUMENTS]
    expected = handle.score(QUERY, DOCUMENTS)
    assert expected != engine.score(QUERY, DOCUMENTS)
    assert all(0 < score < 1 for score in expected)
    ranked = {kept.index: kept.score for kept in handle.rerank(QUERY, DOCUMENTS)}
    assert ranked == dict(enumerate(expected))
    assert engine.score(QUERY, DOCUMENTS, **short) == expected
    assert await engine.ascore(QUERY, DOCUMENTS, **short) == expected
    assert engine.score_pairs(pairs, **short) == expected
    assert await engine.ascore_pairs(pairs, **short) == expected
    assert engine.rerank(QUERY, DOCUMENTS, **short) == handle.rerank(QUERY, DOCUMENTS)
    assert await engine.arerank(QUERY, DOCUMENTS, **short) == handle.rerank(QUERY, DOCUMENTS)
    assert engine.options.max_length is None


def test_an_option_that_does_not_fit_is_refused_when_the_engine_is_made(xlmr: str) -> None:
    with pytest.raises(ConfigurationError, match="query_max_length must be at most 59"):
        RerankEngine.shared(xlmr, max_length=64, query_max_length=60)
    with pytest.raises(ConfigurationError, match="instruction must be None"):
        RerankEngine.shared(xlmr, instruction="Find it")


def test_the_model_lives_as_long_as_any_engine_on_it(xlmr: str) -> None:
    before = engine_threads()
    logits = RerankEngine(xlmr, device="cpu").with_options(normalize=False)
    gc.collect()
    assert logits.is_alive
    assert len(logits.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    assert engine_threads() > before
    del logits
    gc.collect()
    assert engine_threads() <= before


def test_wrong_settings_are_refused(xlmr: str) -> None:
    with pytest.raises(ConfigurationError, match="dtype must be one of"):
        RerankEngine.shared(xlmr, dtype="fast")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="batch_size is not a setting here: use max_batch"):
        RerankEngine.shared(xlmr, batch_size=3)  # type: ignore[call-arg]


def test_copies_are_the_engine_itself(engine: RerankEngine) -> None:
    assert copy.copy(engine) is engine
    assert copy.deepcopy({"nested": [engine]})["nested"][0] is engine


def test_a_pickle_carries_the_settings(xlmr: str) -> None:
    shared = RerankEngine.shared(xlmr, max_length=64)
    sent = pickle.dumps(shared)
    assert len(sent) < 1_000
    assert pickle.loads(sent) == shared


def test_an_engine_can_be_sent_to_a_new_process(xlmr: str) -> None:
    sent = pickle.dumps(RerankEngine.shared(xlmr, dtype="float32", device="cpu"))
    program = (
        "import pickle, sys; engine = pickle.load(sys.stdin.buffer); "
        "print(len(engine.rerank('q', ['a', 'b'])))"
    )
    done = processes.run(program, stdin=sent)
    assert done.stdout.strip() == "2", done.stderr


def test_closing_ends_an_engine_for_good(xlmr: str) -> None:
    engine = RerankEngine(xlmr, device="cpu")
    threads = threading.active_count()
    with engine:
        assert engine.stats().state == "ready"
    assert not engine.is_alive
    assert engine.stats().state == "closed"
    assert threading.active_count() < threads
    with pytest.raises(EngineClosedError):
        engine.rerank(QUERY, DOCUMENTS)
    engine.close()


def test_an_engine_let_go_gives_its_memory_back(xlmr: str) -> None:
    before = engine_threads()
    engine, scorer = recorded_engine(xlmr, device="cpu")
    engine.score(QUERY, DOCUMENTS)
    gone = [weakref.ref(engine), weakref.ref(scorer)]
    assert engine_threads() > before
    del engine, scorer
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert engine_threads() <= before


def test_closing_frees_the_model(xlmr: str) -> None:
    engine, scorer = recorded_engine(xlmr, device="cpu")
    engine.score(QUERY, DOCUMENTS)
    gone = weakref.ref(scorer)
    del scorer
    assert gone() is not None
    engine.close()
    gc.collect()
    assert gone() is None


def test_closing_frees_tokenizer_and_token_cache(xlmr: str) -> None:
    engine = RerankEngine.shared(xlmr, device="cpu", max_batch_tokens=77)
    engine.score(QUERY, DOCUMENTS)
    tokenizer = weakref.ref(engine._running.model.tokenizer)
    assert tokenizer() is not None
    engine.close()
    gc.collect()
    assert tokenizer() is None
    with pytest.raises(EngineClosedError):
        engine.score(QUERY, DOCUMENTS)
    assert (engine.device, engine.is_alive, engine.stats().state) == ("cpu", False, "closed")


def test_the_interpreter_ends_while_calls_wait(xlmr: str) -> None:
    program = f"""
import threading
from bge_rerank_integrations import RerankEngine
engine = RerankEngine.shared({xlmr!r}, device="cpu")
documents = [f"{{number}} " + "word " * 400 for number in range(2000)]
threading.Thread(target=lambda: engine.rerank("q", documents), daemon=True).start()
"""
    done = processes.run(program)
    assert done.returncode == 0, done.stderr


def test_stats_tell_what_was_done(xlmr: str) -> None:
    with RerankEngine(xlmr, device="cpu", dtype="float32") as engine:
        total = engine.rerank(QUERY, DOCUMENTS).total_tokens
        engine.rerank(QUERY, DOCUMENTS)
        stats = engine.stats()
    assert (stats.pairs, stats.tokens) == (18, 2 * total)
    assert stats.cache_hits >= 9
    assert 0 < stats.cache_hit_rate < 1
    assert (stats.queued_pairs, stats.in_flight, stats.failures, stats.retries) == (0, 0, 0, 0)
    assert (stats.device, stats.dtype, stats.state) == ("cpu", "float32", "ready")
    assert "tests/golden/xlmr" in repr(engine)
