"""The sentences of the returned documents, for requests that ask for them."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from bge_rerank_integrations import ScoringError
from bge_rerank_integrations.ranking import Scores
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import Serve, probability
from serving.fake_engine import FakeEngine, logit_of

QUERY = "a panda is"
LONG = "So a panda is here. It eats 竹。"
DOCUMENTS = ["nothing. At all.", LONG, "a panda"]
WINDOWS = ["So a panda is here.", LONG, "It eats 竹。", "a panda", "a panda"]
BODY = {"query": QUERY, "documents": DOCUMENTS, "highlight": True}


def span(start: int, end: int, *windows: str) -> dict[str, Any]:
    one, other = (probability(logit_of(QUERY, window)) for window in windows)
    return {"start": start, "end": end, "score": pytest.approx(math.sqrt(one * other))}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_returned_documents_come_with_their_sentences(
    client: httpx.AsyncClient, fake_engine: FakeEngine, path: str
) -> None:
    response = await client.post(path, json={**BODY, "top_n": 2})

    first, second = response.json()["results"]
    assert (first["index"], second["index"]) == (1, 2)
    assert first["highlights"] == [
        span(0, 20, WINDOWS[0], LONG),
        span(20, len(LONG), LONG, WINDOWS[2]),
    ]
    assert second["highlights"] == [span(0, 7, "a panda", "a panda")]
    # the third document is not returned, and not split
    assert [pair[1] for pair in fake_engine.calls[1][0]] == WINDOWS


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("asked", [{}, {"highlight": False}])
async def test_who_does_not_ask_never_sees_them(
    client: httpx.AsyncClient, fake_engine: FakeEngine, path: str, asked: dict[str, bool]
) -> None:
    response = await client.post(path, json={"query": QUERY, "documents": DOCUMENTS, **asked})

    assert all(
        result.keys() == {"index", "relevance_score"} for result in response.json()["results"]
    )
    assert len(fake_engine.calls) == 1


async def test_sentences_have_the_scale_and_options_of_the_request(
    client: httpx.AsyncClient, fake_engine: FakeEngine
) -> None:
    asked = {"raw_scores": True, "max_tokens_per_doc": 9, "instruction": "judge"}

    response = await client.post("/rerank", json={**BODY, **asked})

    [best, *_] = response.json()["results"]
    alone = logit_of(QUERY, WINDOWS[2])
    logit = logit_of(QUERY, LONG)
    assert [each["score"] for each in best["highlights"]] == [logit, (logit + alone) / 2]
    (_, first), (_, second) = fake_engine.calls
    # the second call has what is left of the time
    assert 0 < first.pop("timeout_s") - second["timeout_s"] < 5
    assert second == {**first, "timeout_s": second["timeout_s"]}


async def test_the_usage_counts_both_readings(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", json=BODY)
    cohere = await client.post("/v2/rerank", json=BODY)

    # of the fake, ten tokens a pair: three documents and eight windows
    assert response.json()["usage"]["total_tokens"] == 110
    assert cohere.json()["meta"]["tokens"]["input_tokens"] == 110


async def test_a_request_may_highlight_as_many_sentences_as_it_may_have_documents(
    serve: Serve,
) -> None:
    async with serve(FakeEngine(), ServerSettings(max_documents=4)) as client:
        few = await client.post("/rerank", json={**BODY, "top_n": 2})
        many = await client.post("/rerank", json=BODY)

    assert few.status_code == 200
    assert many.status_code == 422
    assert "may highlight 4 sentences, got 5" in many.json()["message"]


async def test_an_error_names_the_document_of_the_request(serve: Serve) -> None:
    class FailsOnSentences(FakeEngine):
        async def ascore_pairs(self, pairs: Any, **options: Any) -> Scores:
            if len(self.calls) == 1:
                raise ScoringError("scoring document 1 failed", 1)
            return await super().ascore_pairs(pairs, **options)

    async with serve(FailsOnSentences()) as client:
        response = await client.post("/rerank", json={**BODY, "top_n": 2})

    assert "document 1, in one of its sentences" in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/infinity/rerank", {"query": "q", "documents": ["d"]}),
        ("/tei/rerank", {"query": "q", "texts": ["d"]}),
        ("/vllm/rerank", {"query": "q", "documents": ["d"]}),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": [{"text": "d"}]}),
    ],
)
async def test_a_service_without_highlights_refuses_to_ignore_the_wish(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    assert (await client.post(path, json={**body, "highlight": False})).status_code == 200
    refused = await client.post(path, json={**body, "highlight": True})
    assert refused.status_code in (400, 422)
    assert "'highlight' is a field of another service" in refused.text
