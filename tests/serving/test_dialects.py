"""Each service's own words, asked and answered."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from bge_rerank_integrations.ranking import TokenUsage
from serving.conftest import Serve
from serving.fake_engine import FakeEngine

QUERY = "what is a panda"
DOCUMENTS = ["no word of it", "a panda is a bear", "what a panda is", "is it"]
# of the fake engine, and 1 / (1 + exp(-logit))
LOGITS = [-1.5, 1.5, 2.5, -0.5]
SCORES = [pytest.approx(score) for score in (0.18242552, 0.81757448, 0.92414182, 0.37754067)]
ORDER = [2, 1, 3, 0]
WHOLE = {"truncated_documents": 0, "query_truncated": False}


async def post(client: httpx.AsyncClient, path: str, /, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
async def test_the_common_form(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, model="fake", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert answer.pop("created") > 1.7e9
    assert re.fullmatch("rerank-[0-9a-f]{32}", answer.pop("id"))
    assert answer == {
        "object": "rerank",
        "model": "fake",
        "results": [
            {"index": 2, "relevance_score": SCORES[2]},
            {"index": 1, "relevance_score": SCORES[1]},
        ],
        "usage": {"prompt_tokens": 40, "total_tokens": 40, **WHOLE},
    }


async def test_the_common_form_tells_tokens_and_truncation_on_request(
    client: httpx.AsyncClient, fake_engine: FakeEngine
) -> None:
    fake_engine.usage = TokenUsage(16, [5, 3, 7, 1], [0, 2], 2)
    asked = {"query": QUERY, "documents": DOCUMENTS}
    results = (await post(client, "/rerank", **asked, return_tokens=True))["results"]
    told = {result["index"]: (result["tokens"], result["truncated"]) for result in results}
    assert told == {0: (5, True), 1: (3, False), 2: (7, True), 3: (1, False)}
    assert "tokens" not in (await post(client, "/rerank", **asked))["results"][0]


@pytest.mark.parametrize(
    ("path", "documents", "where"),
    [
        ("/rerank", "documents", "usage"),
        ("/v2/rerank", "documents", "meta"),
        ("/infinity/rerank", "documents", "usage"),
        ("/vllm/rerank", "documents", "usage"),
        ("/voyage/v1/rerank", "documents", "usage"),
        ("/tei/rerank", "texts", None),
    ],
)
async def test_truncated_texts_are_told_in_every_dialect(
    client: httpx.AsyncClient,
    fake_engine: FakeEngine,
    path: str,
    documents: str,
    where: str | None,
) -> None:
    fake_engine.usage = TokenUsage(16, [4] * 4, [0, 2], 2, query_truncated=True)
    response = await client.post(path, json={"query": QUERY, documents: DOCUMENTS})
    assert response.headers["x-truncated-documents"] == "2"
    assert response.headers["x-truncated-query"] == "true"
    if where is not None:
        told = response.json()[where]
        assert (told["truncated_documents"], told["query_truncated"]) == (2, True)
    assert "bge_rerank_truncated_documents_total 2.0" in (await client.get("/metrics")).text


async def test_the_common_form_repeats_texts_and_gives_logits_on_request(
    client: httpx.AsyncClient,
) -> None:
    documents = [{"text": text, "id": 7} for text in DOCUMENTS]
    answer = await post(
        client,
        "/rerank",
        query=QUERY,
        documents=documents,
        return_documents=True,
        raw_scores=True,
        top_n=None,
    )
    assert answer["results"] == [
        {"index": index, "relevance_score": LOGITS[index], "document": {"text": DOCUMENTS[index]}}
        for index in ORDER
    ]


async def test_infinity_gives_bare_documents_or_null(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/infinity/rerank", query=QUERY, documents=DOCUMENTS, top_n=1)
    assert answer["results"] == [{"index": 2, "relevance_score": SCORES[2], "document": None}]
    answer = await post(
        client, "/infinity/rerank", query=QUERY, documents=DOCUMENTS, return_documents=True
    )
    assert [result["document"] for result in answer["results"]] == [DOCUMENTS[i] for i in ORDER]


async def test_cohere_v2(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/v2/rerank", model="fake", query=QUERY, documents=DOCUMENTS * 30)
    assert answer["results"][0] == {"index": 2, "relevance_score": SCORES[2]}
    assert answer["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 2},
        "tokens": {"input_tokens": 1200},
        **WHOLE,
    }
    assert answer.keys() == {"id", "results", "meta"}


@pytest.mark.parametrize(("count", "searches"), [(1, 1), (99, 1), (100, 1), (101, 2), (200, 2)])
async def test_cohere_counts_a_search_for_every_hundred_documents(
    client: httpx.AsyncClient, count: int, searches: int
) -> None:
    answer = await post(client, "/v2/rerank", query=QUERY, documents=["a panda"] * count)
    assert answer["meta"]["billed_units"] == {"search_units": searches}


@pytest.mark.parametrize("path", ["/rerank", "/tei/rerank"])
async def test_tei_answers_a_bare_list(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, query=QUERY, texts=DOCUMENTS)
    assert answer == [{"index": index, "score": SCORES[index]} for index in ORDER]
    answer = await post(
        client, path, query=QUERY, texts=DOCUMENTS, raw_scores=True, return_text=True, truncate=True
    )
    assert answer[0] == {"index": 2, "score": LOGITS[2], "text": DOCUMENTS[2]}


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_scores_come_in_input_order(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, text_1=QUERY, text_2=DOCUMENTS)
    assert answer["data"] == [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(SCORES)
    ]
    assert answer["object"] == "list"
    assert answer["usage"] == {"prompt_tokens": 40, "total_tokens": 40, **WHOLE}


async def test_two_lists_are_scored_in_step(
    client: httpx.AsyncClient, fake_engine: FakeEngine
) -> None:
    queries = [QUERY, "is it", "a bear"]
    documents = [DOCUMENTS[2], DOCUMENTS[3], DOCUMENTS[1]]
    answer = await post(client, "/score", data_1=queries, data_2=documents, use_activation=False)
    assert [result["score"] for result in answer["data"]] == [2.5, 0.5, 0.5]
    # one call: the engine batches the pairs
    assert [pairs for pairs, _ in fake_engine.calls] == [
        tuple(zip(queries, documents, strict=True))
    ]


async def test_one_pair_is_scored(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/score", text_1=QUERY, text_2=DOCUMENTS[1])
    assert [result["score"] for result in answer["data"]] == [SCORES[1]]


async def test_vllm_always_repeats_the_documents(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/vllm/v1/rerank", query=QUERY, documents=DOCUMENTS, top_n=0)
    assert answer["results"] == [
        {"index": i, "document": {"text": DOCUMENTS[i]}, "relevance_score": SCORES[i]}
        for i in ORDER
    ]


async def test_azions_examples_work_as_printed(serve: Serve) -> None:
    documents = [
        "Deep learning is a subset of machine learning that uses neural networks with many layers",
        "The weather is nice today",
        "Deep learning enables computers to learn from large amounts of data",
        "I like pizza",
    ]
    path, query = "/azion/ai/run/baai-bge-reranker-v2-m3", "What is deep learning?"
    async with serve(FakeEngine(model="BAAI/bge-reranker-v2-m3")) as client:
        answer = await post(client, path, query=query, documents=documents)
        scored = await post(client, path, text_1=query, text_2=documents)
    assert len(answer["results"]) == 4
    assert answer["results"][0].keys() == {"index", "document", "relevance_score"}
    assert answer["results"][0]["document"] == {"text": documents[0]}
    assert answer["usage"]["total_tokens"] == 40
    assert [result["index"] for result in scored["data"]] == [0, 1, 2, 3]


async def test_voyage(client: httpx.AsyncClient) -> None:
    answer = await post(
        client, "/voyage/v1/rerank", query=QUERY, documents=DOCUMENTS, model="fake", top_k=1,
        return_documents=True,
    )  # fmt: skip
    assert answer == {
        "object": "list",
        "data": [{"index": 2, "relevance_score": SCORES[2], "document": DOCUMENTS[2]}],
        "model": "fake",
        "usage": {"total_tokens": 40, **WHOLE},
    }


async def test_nim_answers_logits(client: httpx.AsyncClient) -> None:
    passages = [{"text": text} for text in DOCUMENTS]
    answer = await post(client, "/v1/ranking", query={"text": QUERY}, passages=passages)
    assert answer["rankings"] == [{"index": index, "logit": LOGITS[index]} for index in ORDER]


async def test_cloudflare(client: httpx.AsyncClient) -> None:
    answer = await post(
        client,
        "/client/v4/accounts/a1b2/ai/run/@cf/baai/bge-reranker-base",
        query=QUERY,
        contexts=[{"text": text} for text in DOCUMENTS],
        top_k=2,
    )
    assert answer == {
        "result": {
            "response": [{"id": 2, "score": SCORES[2]}, {"id": 1, "score": SCORES[1]}],
        },
        "success": True,
        "errors": [],
        "messages": [],
    }


RANKED = {"query": QUERY, "documents": DOCUMENTS}
COMPARED = {"text_1": QUERY, "text_2": DOCUMENTS}
IN_STEP = {"text_1": [QUERY] * 4, "text_2": DOCUMENTS}
TEXTS = {"query": QUERY, "texts": DOCUMENTS}
PASSAGES = {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS]}
ASKED = "Which passage names the animal?"


@pytest.mark.parametrize(
    ("path", "body", "options"),
    [
        ("/rerank", RANKED, {}),
        ("/rerank", RANKED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/rerank", RANKED | {"instruct": ASKED}, {"instruction": ASKED}),
        ("/rerank", RANKED | {"instruction": None}, {}),
        ("/rerank", RANKED | {"max_tokens_per_doc": 7}, {"max_document_tokens": 7}),
        ("/rerank", RANKED | {"raw_scores": True}, {"normalize": False}),
        ("/v1/rerank", RANKED | {"instruct": ASKED}, {"instruction": ASKED}),
        ("/infinity/rerank", RANKED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/v2/rerank", RANKED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/v2/rerank", RANKED | {"max_tokens_per_doc": 7}, {"max_document_tokens": 7}),
        ("/vllm/rerank", RANKED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/vllm/rerank", RANKED | {"truncate_prompt_tokens": 7}, {"max_document_tokens": 7}),
        ("/vllm/rerank", RANKED | {"truncate_prompt_tokens": -1}, {}),
        ("/vllm/rerank", RANKED | {"use_activation": False}, {"normalize": False}),
        ("/score", COMPARED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/score", IN_STEP | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/score", IN_STEP | {"truncate_prompt_tokens": 7}, {"max_document_tokens": 7}),
        ("/azion/ai/run/fake", COMPARED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/azion/ai/run/fake", RANKED | {"instruction": ASKED}, {"instruction": ASKED}),
        ("/tei/rerank", TEXTS, {}),
        ("/tei/rerank", TEXTS | {"truncate": True}, {}),
        ("/tei/rerank", TEXTS | {"truncate": False}, {"long_documents": "refuse"}),
        ("/tei/rerank", TEXTS | {"raw_scores": True}, {"normalize": False}),
        ("/voyage/v1/rerank", RANKED, {}),
        ("/voyage/v1/rerank", RANKED | {"truncation": False}, {"long_documents": "refuse"}),
        ("/v1/ranking", PASSAGES, {"normalize": False}),
        (
            "/v1/ranking",
            PASSAGES | {"truncate": "NONE"},
            {"normalize": False, "long_documents": "refuse"},
        ),
    ],
)
async def test_what_a_request_says_of_its_scoring_reaches_the_engine(
    client: httpx.AsyncClient,
    fake_engine: FakeEngine,
    path: str,
    body: dict[str, Any],
    options: dict[str, Any],
) -> None:
    await post(client, path, **body)
    pairs = tuple((QUERY, document) for document in DOCUMENTS)
    # all else is as the server's engine has it
    assert fake_engine.calls == [(pairs, {"normalize": True, "timeout_s": 60.0} | options)]


@pytest.mark.parametrize("instruction", ["", 5, ["a"]])
@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank", "/vllm/rerank"])
async def test_a_wrong_instruction_is_named(
    client: httpx.AsyncClient, fake_engine: FakeEngine, path: str, instruction: Any
) -> None:
    response = await client.post(path, json=RANKED | {"instruction": instruction})
    assert response.status_code in (400, 422)
    assert "instruction: " in response.text
    assert not fake_engine.calls
