"""The server around a real engine, with a tiny model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import httpx
import pytest
from paths import GOLDEN

from bge_rerank_integrations import InputError, RerankEngine
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import Serve, probability, served

QUERY = "what is a panda?"
DOCUMENTS = [f"document {number}: the panda eats bamboo {'often ' * number}" for number in range(9)]


@pytest.fixture
async def client(engine: RerankEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with served(engine) as client:
        yield client


@pytest.fixture(scope="module")
def gemma() -> Iterator[RerankEngine]:
    """An engine on a decoder, which takes an instruction."""
    with RerankEngine(str(GOLDEN / "gemma"), device="cpu", dtype="float32") as engine:
        yield engine


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


@cache
def head_of(document: str, tokens: int, engine: RerankEngine) -> str:
    """The longest beginning of a document that has this number of tokens."""
    heads = [document[:end] for end in range(len(document))]
    counts = engine.score(QUERY, heads).usage.pair_tokens
    wanted = counts[0] + tokens
    return [head for head, count in zip(heads, counts, strict=True) if count == wanted][-1]


async def scores_of(client: httpx.AsyncClient, path: str, /, **body: Any) -> list[float]:
    """Scores in input order, from an answer of any form."""
    answer = (await client.post(path, json=body)).json()
    results = answer["results"] if "results" in answer else answer["data"]
    score = "relevance_score" if "results" in answer else "score"
    return [result[score] for result in sorted(results, key=lambda result: result["index"])]


async def test_the_engines_own_scale_changes_no_answer(engine: RerankEngine) -> None:
    answers = []
    for normalize in (True, False):
        async with served(engine.with_options(normalize=normalize)) as client:
            answers.append(
                [
                    await scores_of(client, "/rerank", **RANKED),
                    await scores_of(client, "/rerank", **RANKED, raw_scores=True),
                    await scores_of(client, "/score", **IN_STEP, use_activation=False),
                ]
            )
    logits = engine.score(QUERY, RANKED["documents"])
    expected = [[probability(logit) for logit in logits], logits, logits]
    assert answers == [[pytest.approx(scores, abs=1e-6) for scores in expected]] * 2


RANKED: dict[str, Any] = {"query": QUERY, "documents": [DOCUMENTS[8], "short"]}
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


@pytest.mark.parametrize(("path", "body", "field"), LIMITS)
async def test_a_requests_limit_comes_before_the_servers_own(
    engine: RerankEngine, path: str, body: dict[str, Any], field: str
) -> None:
    expected = [
        [probability(logit) for logit in engine.score(QUERY, [head, "short"])]
        for head in (head_of(DOCUMENTS[8], 6, engine), head_of(DOCUMENTS[8], 11, engine))
    ]
    async with served(engine.with_options(max_document_tokens=6)) as client:
        answers = [
            await scores_of(client, path, **body),
            await scores_of(client, path, **body, **{field: 11}),
        ]
    assert answers == [pytest.approx(scores, abs=1e-6) for scores in expected]
    assert answers[0][0] != pytest.approx(answers[1][0], abs=1e-6)


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
    settings: Any = {"device": "cpu", "dtype": "float32", "max_length": 48}
    with RerankEngine(xlmr, long_documents="window", **settings) as windowed:
        whole, cut = windowed.score(QUERY, [document, head])
        async with served(windowed) as client:
            body = {"query": QUERY, "documents": [document]}
            assert await scores_of(client, "/v2/rerank", **body) == pytest.approx([whole], abs=1e-6)
            body["max_tokens_per_doc"] = limit
            assert await scores_of(client, "/v2/rerank", **body) == pytest.approx([cut], abs=1e-6)
    assert cut != pytest.approx(whole, abs=1e-6)


@pytest.fixture(params=["xlmr", "gemma", "minicpm"])
def checkpoint(request: pytest.FixtureRequest) -> str:
    """An encoder, and two decoders."""
    return str(GOLDEN / request.param)


def engine_of_128(checkpoint: str) -> RerankEngine:
    return RerankEngine(checkpoint, max_length=128, device="cpu", dtype="float32")


@cache
def accepted_by(checkpoint: str) -> list[int]:
    """Tokens of a document of one word, of two, and so on, as long as it is not refused."""
    accepted: list[int] = []
    with engine_of_128(checkpoint) as engine, suppress(InputError):
        for count in range(1, 600):
            ranking = engine.rerank("q", ["panda " * count], long_documents="refuse")
            accepted.append(ranking.total_tokens)
    return accepted


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
    serve: Serve, checkpoint: str, path: str, body: dict[str, object]
) -> None:
    with engine_of_128(checkpoint) as engine:
        async with serve(engine) as client:
            response = await client.post(path, json=body)
    accepted = accepted_by(checkpoint)
    assert response.status_code in (400, 422)
    found = re.search(
        r"document 1: query and document have (\d+) tokens and the model reads (\d+): "
        "shorten them, or allow truncation",
        response.text,
    )
    assert found is not None
    tokens_of_a_panda = accepted[1] - accepted[0]
    assert int(found[1]) == accepted[0] + 599 * tokens_of_a_panda
    assert accepted[-1] <= int(found[2]) < accepted[-1] + tokens_of_a_panda


async def test_the_place_of_a_lone_surrogate_is_told(client: httpx.AsyncClient) -> None:
    body = b'{"query": "q", "documents": ["a", "\\ud800"]}'
    headers = {"Content-Type": "application/json"}
    response = await client.post("/rerank", content=body, headers=headers)
    assert response.status_code == 400
    assert "line 1 column 42" in response.json()["message"]


ASKED = "Does the passage name an animal?"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/rerank", RANKED, "instruction"),
        ("/rerank", RANKED, "instruct"),
        ("/v2/rerank", RANKED, "instruction"),
        ("/vllm/rerank", RANKED, "instruction"),
        ("/score", COMPARED, "instruction"),
        ("/score", IN_STEP, "instruction"),
    ],
)
async def test_a_decoder_follows_the_requests_instruction(
    gemma: RerankEngine, path: str, body: dict[str, Any], field: str
) -> None:
    documents = RANKED["documents"]
    expected = gemma.score(QUERY, documents, instruction=ASKED)
    async with served(gemma) as client:
        plain = await scores_of(client, path, **body)
        asked = await scores_of(client, path, **body, **{field: ASKED})
    assert asked == pytest.approx(expected, abs=1e-6)
    assert plain == pytest.approx(gemma.score(QUERY, documents), abs=1e-6)
    assert all(abs(a - b) > 1e-4 for a, b in zip(asked, plain, strict=True))


async def test_a_requests_instruction_comes_before_the_servers_own(gemma: RerankEngine) -> None:
    documents = RANKED["documents"]
    async with served(gemma.with_options(instruction="Is it short?")) as client:
        own = await scores_of(client, "/rerank", **RANKED)
        asked = await scores_of(client, "/rerank", **RANKED, instruction=ASKED)
    assert own == pytest.approx(gemma.score(QUERY, documents, instruction="Is it short?"), abs=1e-6)
    assert asked == pytest.approx(gemma.score(QUERY, documents, instruction=ASKED), abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/rerank", RANKED, 422),
        ("/v2/rerank", RANKED, 400),
        ("/vllm/rerank", RANKED, 400),
        ("/score", IN_STEP, 400),
    ],
)
async def test_an_encoder_refuses_an_instruction(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int
) -> None:
    response = await client.post(path, json=body | {"instruction": ASKED})
    assert response.status_code == status
    assert "instruction must be None" in response.text


async def test_a_full_queue_is_refused_and_the_rest_is_answered(xlmr: str) -> None:
    with RerankEngine(
        xlmr, device="cpu", dtype="float32", normalize=False, max_queued_pairs=len(DOCUMENTS)
    ) as engine:
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
        body = {"query": QUERY, "texts": [f"{text} {'panda ' * 400}" for text in DOCUMENTS * 5]}
        response = await client.post("/rerank", json=body)
    assert response.status_code == 504
    assert response.json()["error_type"] == "backend"
