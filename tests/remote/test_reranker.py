"""RemoteReranker against documented and invented answers; no socket is opened."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import pickle
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tenacity import wait_exponential, wait_random

from bge_rerank_integrations import (
    ConfigurationError,
    DeadlineError,
    InputError,
    OverloadedError,
    RemoteError,
    RemoteReranker,
    Reranker,
    RerankError,
)
from bge_rerank_integrations.ranking import PairScorer
from bge_rerank_integrations.remote import DIALECTS

# in the form that each service documents, with a result for every document
ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "answers.json").read_text("utf-8"))
KEY = "sk-never-seen"
OK = {"results": [{"index": 0, "relevance_score": 0.25}], "usage": {"total_tokens": 3}}

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other ten times as fast."""
    soon = wait_exponential(0.02) + wait_random(0, 0.02)
    monkeypatch.setattr("bge_rerank_integrations.remote.transport._backoff", soon)


def remote(handler: Handler, dialect: str = "jina", **settings: Any) -> RemoteReranker:
    transport = httpx.MockTransport(handler)
    return RemoteReranker("http://service/base/", dialect, "m", transport=transport, **settings)


def answering(*answers: Any) -> tuple[Handler, list[httpx.Request]]:
    """Answers one after the other, and the requests that they answered."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = answers[min(len(requests), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, httpx.Response):
            return httpx.Response(200, json=answer)
        # a new one: a response belongs to one request
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return handler, requests


def test_every_dialect_has_an_example() -> None:
    assert ANSWERS.keys() == DIALECTS.keys()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_each_services_documented_answer_is_read(dialect: str) -> None:
    example = ANSWERS[dialect]
    handler, _ = answering(example["response"])
    reranker = remote(handler, dialect)
    documents = [f"d{number}" for number in range(example["documents"])]
    ranking = reranker.rerank("q", documents)
    assert [[kept.index, kept.score] for kept in ranking] == [
        [index, pytest.approx(score, rel=1e-3)] for index, score in example["ranking"]
    ]
    assert ranking.total_tokens == example["tokens"]
    answer = example["response"]
    assert ranking.model == (answer.get("model", "m") if isinstance(answer, dict) else "m")
    assert await reranker.arerank("q", documents) == ranking
    await reranker.aclose()


@pytest.mark.parametrize(
    ("dialect", "path", "body"),
    [
        ("cohere", "/v2/rerank", {"model": "m", "query": "q", "documents": ["a", "b"]}),
        (
            "jina",
            "/v1/rerank",
            {"model": "m", "query": "q", "documents": ["a", "b"], "return_documents": False},
        ),
        ("tei", "/rerank", {"query": "q", "texts": ["a", "b"], "truncate": True}),
        ("cloudflare", "/m", {"query": "q", "contexts": [{"text": "a"}, {"text": "b"}]}),
        (
            "nim",
            "/v1/ranking",
            {
                "model": "m",
                "query": {"text": "q"},
                "passages": [{"text": "a"}, {"text": "b"}],
                "truncate": "END",
            },
        ),
    ],
)
def test_a_request_is_in_the_services_words(dialect: str, path: str, body: Any) -> None:
    handler, requests = answering({})
    with pytest.raises(RemoteError):
        remote(handler, dialect, api_key=KEY).rerank("q", ["a", "b"], top_n=1)
    assert requests[0].url.path == "/base" + path
    assert json.loads(requests[0].content) == body
    assert requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert requests[0].headers["content-type"] == "application/json"


def test_the_model_is_the_one_that_answered() -> None:
    handler, _ = answering({**OK, "model": "tiny"})
    reranker = remote(handler)
    assert reranker.model == "m"
    assert reranker.rerank("q", ["a"]).model == reranker.model == "tiny"
    assert reranker.score_pairs([("q", "a")]).model == "tiny"


def test_without_a_models_name_the_service_chooses() -> None:
    handler, requests = answering(OK)
    transport = httpx.MockTransport(handler)
    with RemoteReranker("http://service", transport=transport) as reranker:
        assert reranker.rerank("q", ["a"]).model == reranker.model == "default"
        assert repr(reranker) == "RemoteReranker('http://service', 'jina', None, api_key=None)"
    assert "model" not in json.loads(requests[0].content)
    for dialect in ("azion", "cloudflare"):
        with pytest.raises(ConfigurationError, match=f"{dialect} has it in its path"):
            RemoteReranker("http://service", dialect)


def test_top_n_and_threshold_are_applied_here() -> None:
    results = [{"index": index, "relevance_score": index / 10} for index in range(6)]
    handler, _ = answering({"results": results})
    reranker = remote(handler)
    assert [kept.index for kept in reranker.rerank("q", ["d"] * 6, top_n=2)] == [5, 4]
    kept = reranker.rerank("q", ["d"] * 6, score_threshold=0.4)
    assert [document.index for document in kept] == [5, 4]


async def test_equal_scores_keep_the_services_order() -> None:
    results = [{"index": index, "relevance_score": 1.0} for index in (2, 0, 1)]
    handler, _ = answering({"results": results})
    async with remote(handler) as reranker:
        for ranking in (
            reranker.rerank("q", ["d"] * 3),
            await reranker.arerank("q", ["d"] * 3),
        ):
            assert [kept.index for kept in ranking] == [2, 0, 1]


def test_long_lists_become_several_requests() -> None:
    def score(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["texts"]
        assert len(texts) <= 32
        results = [{"index": i, "score": int(text) / 100} for i, text in enumerate(texts)]
        return httpx.Response(200, json=results[::-1])

    ranking = remote(score, "tei").rerank("q", [str(number) for number in range(70)])
    assert [kept.index for kept in ranking] == list(range(69, -1, -1))
    assert ranking[0].score == 0.69


def test_nothing_to_rank_asks_nobody() -> None:
    handler, requests = answering(OK)
    nothing = remote(handler).rerank("q", [])
    assert (nothing.documents, nothing.total_tokens, nothing.model) == ((), 0, "m")
    assert not requests


RESULTS = [{"index": index, "relevance_score": score} for index, score in ((2, 0.9), (0, 0.5))]
SCORED = {"results": [*RESULTS, {"index": 1, "relevance_score": 0.1}], "usage": {"total_tokens": 9}}


async def test_scores_come_in_input_order() -> None:
    handler, requests = answering(SCORED)
    async with remote(handler) as reranker:
        for scores in (
            reranker.score("q", (text for text in "abc")),
            await reranker.ascore("q", (text for text in "abc")),
        ):
            assert scores == [0.5, 0.1, 0.9]
            assert (scores.total_tokens, scores.model) == (9, "m")
        assert reranker.score("q", []) == await reranker.ascore("q", []) == []
    assert [json.loads(request.content)["documents"] for request in requests] == [list("abc")] * 2


async def test_what_the_service_truncated_is_told_of_all_requests() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        documents = json.loads(request.content)["documents"]
        results = [{"index": index, "relevance_score": 0.1} for index in range(len(documents))]
        headers = {"X-Truncated-Documents": str(len(documents)), "X-Truncated-Query": "true"}
        told = headers if "c" in documents else {}
        return httpx.Response(200, json={"results": results}, headers=told)

    async with remote(handler, max_documents=2) as reranker:
        for scores in (reranker.score("q", list("abcd")), await reranker.ascore("q", list("abcd"))):
            assert (scores.usage.truncated_documents, scores.usage.query_truncated) == (2, True)
        assert reranker.rerank("q", list("abcde")).usage.truncated_documents == 2
        pairs = reranker.score_pairs([("p", "a"), ("q", "c"), ("r", "c")])
        assert pairs.usage.truncated_documents == 2
        assert not reranker.score("q", list("ab")).usage.query_truncated


def test_a_count_of_truncated_documents_that_is_none_is_left_out() -> None:
    handler, _ = answering(httpx.Response(200, json=OK, headers={"X-Truncated-Documents": "-1"}))
    assert remote(handler).rerank("q", ["d"]).usage.truncated_documents == 0


def scoring_by_number(request: httpx.Request) -> httpx.Response:
    """NIM's answer, best first: the number in a passage is its logit."""
    logits = [float(passage["text"]) for passage in json.loads(request.content)["passages"]]
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    rankings = [{"index": index, "logit": logits[index]} for index in order]
    return httpx.Response(200, json={"rankings": rankings, "usage": {"total_tokens": 2}})


def test_pairs_are_one_call_for_each_query() -> None:
    requests: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(json.loads(request.content))
        return scoring_by_number(request)

    pairs = [("p", "1"), ("q", "-2"), ("p", "3"), ("q", "-2"), ("r", "0")]
    scores = remote(handler, "nim").score_pairs(iter(pairs))
    asked = [(body["query"]["text"], [p["text"] for p in body["passages"]]) for body in requests]
    assert asked == [("p", ["1", "3"]), ("q", ["-2", "-2"]), ("r", ["0"])]
    assert scores.logits == [1, -2, 3, -2, 0]
    assert scores == pytest.approx([1 / (1 + math.exp(-logit)) for logit in scores.logits])
    assert (scores.total_tokens, scores.model) == (6, "m")
    assert remote(handler, "nim", normalize=False).score_pairs(pairs) == scores.logits
    assert remote(handler, "nim").score_pairs([]) == []
    assert len(requests) == 6


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("q", "\ud800"), "the document of pair 2 holds a lone surrogate"),
        ((None, "a"), "the query of pair 2 must be a string, got NoneType"),
        (("q",), r"pair 2 must be \(query, document\), got"),
        ("qa", r"pair 2 must be \(query, document\), got 'qa'"),
    ],
)
def test_a_wrong_pair_is_named_before_anything_is_sent(pair: Any, message: str) -> None:
    handler, requests = answering(OK)
    with pytest.raises(InputError, match=message) as caught:
        remote(handler).score_pairs([("q", "a"), ("r", "b"), pair])
    assert caught.value.index == 2
    assert not requests


def test_a_service_that_fails_on_a_later_query_fails_the_call() -> None:
    handler, requests = answering(OK, httpx.Response(400, json={"message": "no"}))
    with pytest.raises(RemoteError, match="400: no"):
        remote(handler).score_pairs([("q", "a"), ("r", "b")])
    assert len(requests) == 2


def test_logits_are_asked_for_where_the_service_has_them() -> None:
    handler, requests = answering([{"index": 0, "score": -3.5}])
    ranking = remote(handler, "tei", normalize=False).rerank("q", ["a"])
    assert ranking[0].score == -3.5
    assert json.loads(requests[0].content)["raw_scores"] is True
    handler, _ = answering({"rankings": [{"index": 0, "logit": -3.5}]})
    assert remote(handler, "nim", normalize=False).rerank("q", ["a"])[0].score == -3.5
    normalized = remote(handler, "nim").rerank("q", ["a"])[0].score
    assert normalized == pytest.approx(1 / (1 + math.exp(3.5)))
    with pytest.raises(ConfigurationError, match="cohere reports no logits"):
        remote(handler, "cohere", normalize=False)


GOOD = {"index": 1, "relevance_score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no list at results"),
        ([], "no list at results"),
        ({"results": None}, "no list at results"),
        ({"results": [GOOD]}, "one result for document 0 of 2, it has 0"),
        ({"results": [GOOD, GOOD, GOOD]}, "one result for document 0 of 2"),
        (
            {"results": [GOOD, {"index": 0, "relevance_score": 1}, GOOD]},
            "document 1 of 2, it has 2",
        ),
        ({"results": [GOOD, {"index": 2, "relevance_score": 1}]}, "index 2"),
        ({"results": [GOOD, {"index": -1, "relevance_score": 1}]}, "index -1"),
        ({"results": [GOOD, {"index": True, "relevance_score": 1}]}, "index True"),
        ({"results": [GOOD, {"index": "0", "relevance_score": 1}]}, "index '0'"),
        ({"results": [GOOD, {"index": 0, "relevance_score": None}]}, "document 0 must be a finite"),
        ({"results": [GOOD, {"index": 0, "relevance_score": "1"}]}, "got '1'"),
        ({"results": [GOOD, {"index": 0, "relevance_score": False}]}, "got False"),
        ({"results": [GOOD, {"index": 0}]}, "got None"),
        ({"results": [GOOD, 3]}, "must be an object, got 3"),
        (b'{"results": [{"index": 0, "relevance_score": NaN}, ', "not JSON"),
        (b'{"results": [{"index": 0, "relevance_score": NaN}]}', "finite number, got nan"),
        (b"<html>502 Bad Gateway</html>", "not JSON"),
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_refused(content: Any, message: str) -> None:
    answer = httpx.Response(200, content=content) if isinstance(content, bytes) else content
    handler, requests = answering(answer)
    reranker = remote(handler)
    with pytest.raises(RemoteError, match=message):
        reranker.rerank("q", ["a", "b"])
    with pytest.raises(RemoteError, match=message):
        await reranker.arerank("q", ["a", "b"])
    assert len(requests) == 2
    await reranker.aclose()


PASSING = [
    httpx.Response(429, headers={"Retry-After": "0"}, json={"message": "slow down"}),
    httpx.Response(502, html="<html>Bad Gateway</html>"),
    httpx.Response(503, json={"detail": "loading"}),
    httpx.Response(504),
    httpx.ConnectError("refused"),
    httpx.ReadError("reset"),
    httpx.RemoteProtocolError("closed"),
]


@pytest.mark.parametrize("failure", PASSING, ids=repr)
async def test_what_may_pass_is_tried_again(failure: Any) -> None:
    handler, requests = answering(failure, OK)
    assert remote(handler).rerank("q", ["a"])[0].score == 0.25
    assert len(requests) == 2
    handler, requests = answering(failure, OK)
    async with remote(handler) as reranker:
        assert (await reranker.arerank("q", ["a"]))[0].score == 0.25
    assert len(requests) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422, 500, 501])
def test_what_will_not_pass_is_told_at_once(status: int) -> None:
    body = {"message": f"no: {KEY} is wrong"}
    handler, requests = answering(httpx.Response(status, json=body, headers={"Location": "/x"}))
    with pytest.raises(RemoteError, match=r"no: \[key\] is wrong") as caught:
        remote(handler, api_key=KEY).rerank("q", ["a"])
    assert caught.value.status == status
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("failure", "error"),
    [(PASSING[0], OverloadedError), (PASSING[1], RemoteError), (PASSING[4], RemoteError)],
)
async def test_attempts_are_counted(failure: Any, error: type[Exception]) -> None:
    handler, requests = answering(failure)
    with pytest.raises(error):
        remote(handler, max_attempts=2).rerank("q", ["a"])
    assert len(requests) == 2
    async with remote(handler, max_attempts=2) as reranker:
        with pytest.raises(error):
            await reranker.arerank("q", ["a"])
    assert len(requests) == 4


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_waited_for(date: bool) -> None:
    from email.utils import formatdate

    # a date has no fractions of a second
    asked = formatdate(time.time() + 2, usegmt=True) if date else "1"
    handler, requests = answering(httpx.Response(429, headers={"Retry-After": asked}), OK)
    start = time.monotonic()
    remote(handler).rerank("q", ["a"])
    assert 0.9 < time.monotonic() - start < 4
    assert len(requests) == 2


def test_a_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    handler, requests = answering(httpx.Response(429, headers={"Retry-After": "60"}))
    start = time.monotonic()
    with pytest.raises(OverloadedError):
        remote(handler, timeout_s=5).rerank("q", ["a"])
    assert time.monotonic() - start < 1
    assert len(requests) == 1


def test_a_timeout_is_a_deadline_and_is_not_tried_again() -> None:
    handler, requests = answering(httpx.ReadTimeout("late"))
    with pytest.raises(DeadlineError):
        remote(handler).rerank("q", ["a"])
    assert len(requests) == 1


async def test_a_service_that_is_silent_ends_at_the_deadline() -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with remote(never, timeout_s=0.2) as reranker:  # type: ignore[arg-type]
        with pytest.raises(DeadlineError):
            await reranker.arerank("q", ["a"])


def test_texts_are_checked_before_anything_is_sent() -> None:
    handler, requests = answering(OK)
    reranker = remote(handler)
    with pytest.raises(InputError, match="document 1 holds a lone surrogate") as caught:
        reranker.rerank("q", ["a", "\ud800"])
    assert caught.value.index == 1
    with pytest.raises(InputError, match="query must be a string, got NoneType"):
        reranker.rerank(None, ["a"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one string"):
        reranker.rerank("q", "abc")
    with pytest.raises(ConfigurationError, match="top_n"):
        reranker.rerank("q", ["a"], top_n=0)
    assert not requests


def test_the_key_is_never_seen(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    handler, requests = answering(OK)
    reranker = remote(handler, api_key=KEY)
    reranker.rerank("q", ["a"])
    assert requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(reranker) + str(reranker) + caplog.text
    plain = RemoteReranker("http://service", "jina", "m", api_key=KEY)
    assert KEY.encode() not in pickle.dumps(plain)
    with pytest.raises(ConfigurationError, match="set JINA_API_KEY"):
        pickle.loads(pickle.dumps(plain))
    monkeypatch.setenv("JINA_API_KEY", KEY)
    assert repr(pickle.loads(pickle.dumps(plain))) == repr(plain)


def test_the_key_comes_from_the_dialects_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in {dialect.key_variable for dialect in DIALECTS.values()}:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("BGE_RERANK_API_KEY", "own")
    handler, requests = answering(OK)
    remote(handler, "jina").rerank("q", ["a"])
    remote(handler, "vllm").rerank("q", ["a"])
    assert "authorization" not in requests[0].headers
    assert requests[1].headers["authorization"] == "Bearer own"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "service"}, "base_url must be http"),
        ({"base_url": "ftp://service"}, "base_url must be http"),
        ({"base_url": "http://user:secret@service"}, "without user"),
        ({"base_url": "http://"}, "base_url must be http"),
        ({"base_url": None}, "base_url must be a URL"),
        ({"dialect": "other"}, "dialect must be one of 'cohere'"),
        ({"api_key": "two\nlines"}, "api_key must be printable"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": math.inf}, "timeout_s"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_documents": 0}, "max_documents"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        RemoteReranker(**({"base_url": "http://service"} | settings))
    assert "secret" not in str(caught.value)


def test_it_is_a_reranker_and_its_copies_are_itself() -> None:
    reranker = RemoteReranker("http://service")
    assert isinstance(reranker, Reranker)
    assert isinstance(reranker, PairScorer)
    assert copy.copy(reranker) is copy.deepcopy(reranker) is reranker


def test_it_works_on_one_event_loop_after_the_other() -> None:
    handler, requests = answering(OK)
    reranker = remote(handler)

    async def ask() -> None:
        await reranker.arerank("q", ["a"])
        await reranker.aclose()

    for _ in range(3):
        asyncio.run(ask())
    assert len(requests) == 3


def test_threads_share_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[httpx.AsyncClient] = []

    class SlowClient(httpx.AsyncClient):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            made.append(self)
            time.sleep(0.05)
            super().__init__(*arguments, **settings)

    monkeypatch.setattr(httpx, "AsyncClient", SlowClient)
    handler, requests = answering(OK)
    with remote(handler) as reranker, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reranker.rerank("q", ["a"]), range(8)))
    assert len(requests) == 8
    assert len(made) == 1
    assert made[0].is_closed


class Chunks(httpx.AsyncByteStream):
    """A response's bytes, and how many of its chunks were read."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.read += 1
            yield chunk


async def test_an_answer_that_grows_too_large_is_refused_while_it_comes() -> None:
    chunks = Chunks([b" " * 100_000] * 300)
    with pytest.raises(RemoteError, match=r"answer is larger than \d+ bytes"):
        remote(lambda _: httpx.Response(200, stream=chunks)).rerank("q", ["a"])
    assert chunks.read < 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-unknown"])
async def test_an_answer_is_asked_for_uncompressed_and_refused_otherwise(encoding: str) -> None:
    # a small compressed body may unpack to a gigabyte
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Chunks([b"x"]))

    with pytest.raises(RemoteError, match=f"Content-Encoding '{encoding}'"):
        remote(handler).rerank("q", ["a"])
    assert requests[0].headers["accept-encoding"] == "identity"


def test_requests_of_a_call_are_under_way_together_up_to_a_bound() -> None:
    waiting = most = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.05)
        waiting -= 1
        return scoring_by_number(request)

    reranker = remote(handler, "nim", max_documents=2, normalize=False)  # type: ignore[arg-type]
    start = time.monotonic()
    scores = reranker.score("q", [str(number) for number in range(64)])
    assert scores == list(map(float, range(64)))
    assert most == 8
    # one after the other they would take 1.6 s
    assert time.monotonic() - start < 1
    most = 0
    assert reranker.score_pairs([(f"q{i}", str(i)) for i in range(20)]) == list(range(20))
    assert most == 8


def test_long_texts_are_split_by_size() -> None:
    sizes: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sizes.append(len(request.content))
        documents = json.loads(request.content)["documents"]
        return httpx.Response(
            200,
            json={
                "results": [
                    {"index": index, "relevance_score": int(document.lstrip("ü\n"))}
                    for index, document in enumerate(documents)
                ]
            },
        )

    # line breaks take two bytes in JSON, ü two in UTF-8
    documents = [f"{'ü' * 4_000}{chr(10) * 1_000}{number}" for number in range(500)]
    assert remote(handler).score("q", documents) == list(range(500))
    assert len(sizes) > 2
    assert max(sizes) < 2_000_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_service_has_bounds_of_a_request(dialect: str) -> None:
    assert 1 <= DIALECTS[dialect].max_documents <= 10_000
    assert DIALECTS[dialect].max_bytes < 2**21


def test_a_request_that_is_too_large_is_halved_until_it_is_not() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        documents = json.loads(request.content)["documents"]
        if len(documents) > 3 or "large" in documents:
            return httpx.Response(413, json={"message": "too large"})
        results = [
            {"index": index, "relevance_score": int(text)} for index, text in enumerate(documents)
        ]
        return httpx.Response(200, json={"results": results})

    assert remote(handler).score("q", [str(i) for i in range(20)]) == list(range(20))
    with pytest.raises(RemoteError, match="413: too large"):
        remote(handler).score("q", ["1", "large"])


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(
            200, content=b'{"results":[{"index":0,"relevance_score":%s}]}' % (b"9" * 400)
        ),
        httpx.Response(200, json=OK, headers={"X-Truncated-Documents": "9" * 5_000}),
        httpx.Response(200, json={**OK, "usage": {"total_tokens": 10**400}}),
        httpx.Response(200, json={**OK, "usage": {"total_tokens": 1e300}}),
        httpx.Response(429, headers={"Retry-After": "9" * 400}),
        httpx.Response(429, headers={"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"}),
        httpx.Response(500, content=b"\xff"),
        RuntimeError("a bug of a transport"),
        OSError(24, "Too many open files"),
    ],
    ids=range(9),
)
async def test_every_failure_is_one_of_this_packages_errors(answer: Any) -> None:
    handler, _ = answering(answer)
    reranker = remote(handler, max_attempts=1)
    with suppress(RerankError):
        reranker.rerank("q", ["a"])
    with suppress(RerankError):
        await reranker.arerank("q", ["a"])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("ALL_PROXY", "garbage://x"),
        ("SSL_CERT_FILE", "/nowhere"),
    ],
)
async def test_an_environment_that_cannot_be_used_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    reranker = RemoteReranker("http://service", timeout_s=2)
    try:
        import socksio  # noqa: F401

        expected: type[RerankError] = RerankError
    except ModuleNotFoundError:
        expected = ConfigurationError
    with pytest.raises(expected):
        reranker.rerank("q", ["a"])
    with pytest.raises(expected):
        await reranker.arerank("q", ["a"])


def test_a_models_name_is_escaped_in_a_path() -> None:
    handler, requests = answering({})
    transport = httpx.MockTransport(handler)
    reranker = RemoteReranker("http://s", "cloudflare", "@cf/a\nb?c", transport=transport)
    with pytest.raises(RemoteError):
        reranker.rerank("q", ["a"])
    assert requests[0].url.raw_path == b"/@cf/a%0Ab%3Fc"


@pytest.mark.parametrize("status", [408, 425, 520, 524, 529])
def test_more_of_what_may_pass_is_tried_again(status: int) -> None:
    handler, requests = answering(httpx.Response(status), OK)
    assert remote(handler).rerank("q", ["a"])[0].score == 0.25
    assert len(requests) == 2


def test_the_proxy_of_ray_says_in_plain_text_that_a_replica_died() -> None:
    died = httpx.Response(500, text="Internal Server Error")
    handler, requests = answering(died, OK)
    assert remote(handler).rerank("q", ["a"])[0].score == 0.25
    assert len(requests) == 2


def test_control_characters_of_a_message_are_left_out() -> None:
    handler, _ = answering(httpx.Response(400, json={"message": "a\x1b[31mred\x00\u202e\nb"}))
    with pytest.raises(RemoteError) as caught:
        remote(handler).rerank("q", ["a"])
    assert str(caught.value).endswith("400: a [31mred b")
