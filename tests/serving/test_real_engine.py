"""The server around a real engine, with a tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import probability, served

QUERY = "what is a panda?"
DOCUMENTS = [f"document {number}: the panda eats bamboo {'often ' * number}" for number in range(9)]


@pytest.fixture
async def client(engine: RerankEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with served(engine) as client:
        yield client


async def test_scores_are_the_engines(client: httpx.AsyncClient, engine: RerankEngine) -> None:
    ranking = engine.rerank(QUERY, DOCUMENTS)
    body = {"query": QUERY, "documents": DOCUMENTS}
    answer = (await client.post("/rerank", json=body)).json()
    assert [(r["index"], r["relevance_score"]) for r in answer["results"]] == [
        (document.index, pytest.approx(probability(document.score))) for document in ranking
    ]
    assert answer["usage"]["total_tokens"] == ranking.total_tokens


async def test_both_scales_come_from_one_engine(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS}
    scores = (await client.post("/rerank", json=body)).json()
    raw = (await client.post("/rerank", json=body | {"raw_scores": True})).json()
    assert [result["score"] for result in scores] == pytest.approx(
        [probability(result["score"]) for result in raw]
    )


async def test_requests_that_come_together_are_all_answered(
    client: httpx.AsyncClient, engine: RerankEngine
) -> None:
    async def ask(number: int) -> list[int]:
        documents = DOCUMENTS[number % 5 :]
        body = {"query": f"{QUERY} {number}", "documents": documents}
        answer = (await client.post("/rerank", json=body)).json()
        expected = [kept.index for kept in engine.rerank(body["query"], documents)]
        assert [result["index"] for result in answer["results"]] == expected
        return expected

    assert len(await asyncio.gather(*map(ask, range(40)))) == 40
    assert engine.stats().queued_pairs == 0


def head_of(document: str, tokens: int, engine: RerankEngine) -> str:
    """The longest beginning of a document that has this number of tokens."""
    heads = [document[:end] for end in range(len(document))]
    counts = [engine.rerank(QUERY, [head]).total_tokens for head in heads]
    wanted = counts[0] + tokens
    return [head for head, count in zip(heads, counts, strict=True) if count == wanted][-1]


async def scores_of(client: httpx.AsyncClient, path: str, /, **body: Any) -> list[float]:
    """Scores in input order, from an answer of any form."""
    answer = (await client.post(path, json=body)).json()
    results = answer["results"] if "results" in answer else answer["data"]
    score = "relevance_score" if "results" in answer else "score"
    return [result[score] for result in sorted(results, key=lambda result: result["index"])]


RANKED = {"query": QUERY, "documents": [DOCUMENTS[8], "short"]}
COMPARED = {"text_1": QUERY, "text_2": [DOCUMENTS[8], "short"]}
IN_STEP = {"text_1": [QUERY, QUERY], "text_2": [DOCUMENTS[8], "short"]}
# where each service's requests say how many tokens of a document are read
LIMITS = [
    ("/rerank", RANKED, "max_tokens_per_doc"),
    ("/v2/rerank", RANKED, "max_tokens_per_doc"),
    ("/vllm/rerank", RANKED, "truncate_prompt_tokens"),
    ("/score", COMPARED, "truncate_prompt_tokens"),
    ("/score", IN_STEP, "truncate_prompt_tokens"),
]


@pytest.mark.parametrize(("path", "body", "field"), LIMITS)
async def test_a_limit_of_tokens_cuts_the_document(
    client: httpx.AsyncClient, engine: RerankEngine, path: str, body: dict[str, Any], field: str
) -> None:
    head = head_of(DOCUMENTS[8], 6, engine)
    expected = [probability(logit) for logit in engine.score(QUERY, [head, "short"])]
    cut = await scores_of(client, path, **body, **{field: 6})
    assert cut == pytest.approx(expected, abs=1e-6)
    assert cut[0] != pytest.approx((await scores_of(client, path, **body))[0], abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [(path, body, {field: 4096}) for path, body, field in LIMITS]
    + [(path, body, {field: -1}) for path, body, field in LIMITS[2:]],
)
async def test_more_tokens_than_the_model_reads_change_nothing(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], limit: dict[str, int]
) -> None:
    assert await scores_of(client, path, **body, **limit) == await scores_of(client, path, **body)


async def test_a_limit_holds_where_long_documents_are_read_in_windows(
    engine: RerankEngine, xlmr: str
) -> None:
    document, limit = DOCUMENTS[8] * 4, 60
    head = head_of(document, limit, engine)
    config = EngineConfig(
        xlmr,
        device="cpu",
        dtype="float32",
        normalize=False,
        max_length=48,
        long_documents="window",
    )
    with RerankEngine(config) as windowed:
        whole, cut = (probability(logit) for logit in windowed.score(QUERY, [document, head]))
        async with served(windowed) as client:
            body = {"query": QUERY, "documents": [document]}
            assert await scores_of(client, "/v2/rerank", **body) == pytest.approx([whole], abs=1e-6)
            body["max_tokens_per_doc"] = limit
            assert await scores_of(client, "/v2/rerank", **body) == pytest.approx([cut], abs=1e-6)
    assert cut != pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tei/rerank", {"query": "q", "texts": ["a", "panda " * 600], "truncate": False}),
        (
            "/voyage/v1/rerank",
            {"query": "q", "documents": ["a", "panda " * 600], "truncation": False},
        ),
        (
            "/v1/ranking",
            {
                "query": {"text": "q"},
                "passages": [{"text": "a"}, {"text": "panda " * 600}],
                "truncate": "NONE",
            },
        ),
    ],
)
async def test_a_document_that_is_too_long_is_refused_where_that_is_asked(
    client: httpx.AsyncClient, path: str, body: dict[str, object]
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code in (400, 422)
    assert "document 1 have" in response.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": "q", "documents": ["a", "\\ud800"]}',
        b'{"query": "q", "documents": ["a", "\\ud800"], "max_tokens_per_doc": 3}',
        b'{"query": "q", "texts": ["a", "\\ud800"], "truncate": false}',
    ],
)
async def test_a_lone_surrogate_is_named(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post("/rerank", content=body, headers=headers)
    assert response.status_code == 422
    assert "document 1 holds a lone surrogate" in response.text


async def test_an_engine_that_normalizes_is_refused(xlmr: str) -> None:
    from bge_rerank_integrations.serving.app import create_app

    config = EngineConfig(xlmr, device="cpu", dtype="float32")
    errors: list[Exception] = []
    with RerankEngine(config) as engine:
        app = create_app(lambda: engine, on_load_error=errors.append)
        async with app.router.lifespan_context(app):
            while not errors:
                await asyncio.sleep(0.005)
    assert "normalize=False" in str(errors[0])


async def test_a_full_queue_is_refused_and_the_rest_is_answered(xlmr: str) -> None:
    config = EngineConfig(
        xlmr, device="cpu", dtype="float32", normalize=False, max_queued_pairs=len(DOCUMENTS)
    )
    with RerankEngine(config) as engine:
        async with served(engine) as client:

            async def ask(number: int) -> httpx.Response:
                body = {"query": f"{QUERY} {number}", "documents": DOCUMENTS}
                return await client.post("/v2/rerank", json=body)

            responses = await asyncio.gather(*map(ask, range(30)))
            assert {response.status_code for response in responses} == {200, 429}
            for number, response in enumerate(responses):
                if response.status_code == 200:
                    local = engine.rerank(f"{QUERY} {number}", DOCUMENTS)
                    results = response.json()["results"]
                    assert [r["index"] for r in results] == [kept.index for kept in local]
                else:
                    assert response.headers["retry-after"] == "1"
                    assert "max_queued_pairs" in response.json()["message"]
            assert (await ask(0)).status_code == 200


async def test_a_deadline_is_kept(engine: RerankEngine) -> None:
    async with served(engine, ServerSettings(timeout_s=0.001)) as client:
        body = {"query": QUERY, "texts": [f"{text} {'panda ' * 400}" for text in DOCUMENTS * 20]}
        response = await client.post("/rerank", json=body)
    assert response.status_code == 504
    assert response.json()["error_type"] == "backend"


async def test_a_document_of_two_lists_is_named_as_the_request_counts_it(
    client: httpx.AsyncClient,
) -> None:
    body = b'{"text_1": ["p", "q", "r"], "text_2": ["a", "b", "bad \\ud800"]}'
    headers = {"Content-Type": "application/json"}
    error = (await client.post("/score", content=body, headers=headers)).json()["error"]
    assert error["message"].startswith("document 2 holds a lone surrogate")
    assert error["param"] == "documents[2]"
