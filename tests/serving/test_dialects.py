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
# Together's client reads completion_tokens
USAGE = {"prompt_tokens": 40, "completion_tokens": 0, "total_tokens": 40, **WHOLE}


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
        "usage": USAGE,
        # Cohere's and Xinference's Java clients read them
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 40, "output_tokens": 0},
            **WHOLE,
        },
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
    ("asked", "long_documents"),
    [
        ({}, None),
        ({"truncation_direction": "right", "truncate": True}, None),
        ({"truncation_direction": "Left"}, "truncate_left"),
        ({"truncation_direction": "left", "truncate": False}, "refuse"),
    ],
)
async def test_tei_says_which_side_is_cut(
    client: httpx.AsyncClient,
    fake_engine: FakeEngine,
    asked: dict[str, Any],
    long_documents: str | None,
) -> None:
    response = await client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS} | asked)
    assert response.status_code == 200
    ((_, options),) = fake_engine.calls
    assert options.get("long_documents") == long_documents


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
    async def counted() -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        name = "bge_rerank_truncated_documents_total "
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    fake_engine.usage = TokenUsage(16, [4] * 4, [0, 2], 2, query_truncated=True)
    before = await counted()
    response = await client.post(path, json={"query": QUERY, documents: DOCUMENTS})
    assert response.headers["x-truncated-documents"] == "2"
    assert response.headers["x-truncated-query"] == "true"
    if where is not None:
        told = response.json()[where]
        assert (told["truncated_documents"], told["query_truncated"]) == (2, True)
    assert await counted() == before + 2
    fake_engine.usage = TokenUsage(16, [5, 3, 7, 1], [0, 2], 2)
    response = await client.post(path, json={"query": QUERY, documents: DOCUMENTS})
    assert response.headers["x-truncated-query"] == "false"


@pytest.mark.parametrize(
    ("per_document", "of_all", "limit"), [(5, 3, 3), (3, 5, 3), (5, -1, 5), (5, 0, 5)]
)
async def test_of_two_limits_of_a_document_the_smaller_one_holds(
    client: httpx.AsyncClient, fake_engine: FakeEngine, per_document: int, of_all: int, limit: int
) -> None:
    limits = {"max_tokens_per_doc": per_document, "truncate_prompt_tokens": of_all}
    await post(client, "/rerank", query=QUERY, documents=DOCUMENTS, **limits)
    ((_, options),) = fake_engine.calls
    assert options["max_document_tokens"] == limit


async def test_false_is_no_0_in_a_field_of_another_service(client: httpx.AsyncClient) -> None:
    for neutral, status in ((0, 200), (False, 422)):
        body = {"query": QUERY, "documents": DOCUMENTS, "max_tokens_per_query": neutral}
        assert (await client.post("/rerank", json=body)).status_code == status


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
        "tokens": {"input_tokens": 1200, "output_tokens": 0},
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
    assert answer["usage"] == USAGE


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


VOYAGE = {"query": QUERY, "documents": DOCUMENTS, "model": "fake", "top_k": None}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/voyage/rerank"])
@pytest.mark.parametrize(
    ("body", "count"),
    [
        (VOYAGE | {"truncation": True}, 4),
        (VOYAGE | {"truncation": False, "top_k": 1}, 1),
        (VOYAGE | {"top_k": 1}, 1),
    ],
)
async def test_voyage_is_told_by_its_fields_where_others_share_its_path(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], count: int
) -> None:
    answer = await post(client, path, **body)
    assert [result["index"] for result in answer["data"]] == ORDER[:count]


async def test_a_field_that_is_null_tells_nothing(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/rerank", **VOYAGE, texts=None, property=None)
    assert [result["index"] for result in answer["results"]] == ORDER


@pytest.mark.parametrize("path", ["/rerank", "/weaviate/rerank"])
async def test_weaviate_reads_scores_in_the_order_of_its_documents(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await post(client, path, query=QUERY, documents=DOCUMENTS, property="")
    assert answer == {
        "query": QUERY,
        "scores": [
            {"document": document, "score": score}
            for document, score in zip(DOCUMENTS, SCORES, strict=True)
        ],
    }


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/reranking"])
async def test_contexts_are_cloudflares_at_the_root_too(
    client: httpx.AsyncClient, path: str
) -> None:
    contexts = [{"text": text} for text in DOCUMENTS]
    answer = await post(client, path, query=QUERY, contexts=contexts, top_k=2)
    assert answer["result"]["response"] == [
        {"id": 2, "score": SCORES[2]},
        {"id": 1, "score": SCORES[1]},
    ]
    assert answer["success"] is True
    refused = await client.post(path, json={"query": QUERY, "contexts": ["a"]})
    assert (refused.status_code, refused.json()["success"]) == (400, False)


@pytest.mark.parametrize("path", ["/v1/reranking", "/api/v1/reranking", "/reranking"])
async def test_llama_cpp_and_mixedbread_share_a_path(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, **RANKED, top_n=2)
    assert [result["index"] for result in answer["results"]] == ORDER[:2]


async def test_mixedbread(client: httpx.AsyncClient) -> None:
    answer = await post(
        client,
        "/v1/reranking",
        model="fake",
        query=QUERY,
        input=DOCUMENTS,
        top_k=1,
        return_input=True,
    )
    assert answer == {
        "usage": USAGE,
        "model": "fake",
        "data": [{"index": 2, "score": SCORES[2], "input": DOCUMENTS[2], "object": "rank_result"}],
        "object": "list",
        "top_k": 1,
        "return_input": True,
    }
    answer = await post(client, "/v1/reranking", query=QUERY, input=DOCUMENTS, top_k=9)
    assert answer["top_k"] == 4
    assert not any("input" in result for result in answer["data"])


async def test_fireworks(client: httpx.AsyncClient) -> None:
    path = "/inference/v1/rerank"
    answer = await post(
        client, path, query=QUERY, documents=DOCUMENTS, top_n=1, return_documents=True
    )
    assert answer == {
        "object": "list",
        "model": "fake",
        "data": [{"relevance_score": SCORES[2], "index": 2, "document": DOCUMENTS[2]}],
        "usage": USAGE,
    }
    answer = await post(client, path, query=QUERY, documents=DOCUMENTS, top_n=0)
    assert [result["index"] for result in answer["data"]] == ORDER
    assert not any("document" in result for result in answer["data"])


async def test_dashscope(client: httpx.AsyncClient) -> None:
    path = DASHSCOPE
    asked = {"query": QUERY, "documents": DOCUMENTS}
    parameters = {"top_n": 1, "return_documents": True}
    answer = await post(client, path, model="fake", input=asked, parameters=parameters)
    assert answer.pop("request_id")
    assert answer == {
        "output": {
            "results": [
                {"index": 2, "relevance_score": SCORES[2], "document": {"text": DOCUMENTS[2]}}
            ]
        },
        "usage": {"total_tokens": 40, **WHOLE},
    }
    answer = await post(client, path, model="fake", input=asked)
    assert answer["output"]["results"] == [
        {"index": index, "relevance_score": SCORES[index]} for index in ORDER
    ]


async def test_dashscopes_other_path_takes_the_common_form(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/compatible-api/v1/reranks", query=QUERY, documents=DOCUMENTS)
    assert [result["index"] for result in answer["results"]] == ORDER


async def test_deepinfra(client: httpx.AsyncClient) -> None:
    path = "/v1/inference/fake"
    answer = await post(client, path, queries=[QUERY] * 4, documents=DOCUMENTS)
    assert answer.pop("request_id")
    assert answer == {"scores": SCORES, "input_tokens": 40}


@pytest.mark.parametrize("count", [{"top_n": 2}, {"top_k": 2}])
@pytest.mark.parametrize("path", ["/v1/ranking", "/v1/retrieval/nvidia/rerank-qa/reranking"])
async def test_nim_limits_its_rankings(serve: Serve, path: str, count: dict[str, int]) -> None:
    async with serve({"nvidia/rerank-qa": FakeEngine()}) as client:
        answer = await post(client, path, **PASSAGES, **count)
    assert [ranking["index"] for ranking in answer["rankings"]] == ORDER[:2]


async def test_teis_answer_is_limited(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/tei/rerank", **TEXTS, top_n=2)
    assert [result["index"] for result in answer] == ORDER[:2]


async def test_cohere_repeats_texts_on_request(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/v2/rerank", **RANKED, top_n=1, return_documents=True)
    assert [result["document"] for result in answer["results"]] == [{"text": DOCUMENTS[2]}]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/infinity/rerank"])
async def test_a_top_n_of_0_means_all(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, **RANKED, top_n=0)
    assert [result["index"] for result in answer["results"]] == ORDER


async def test_a_flag_may_be_written_as_a_word(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/v1/rerank", **RANKED, return_documents="true", return_len="true")
    assert answer["results"][0]["document"] == {"text": DOCUMENTS[2]}
    answer = await post(client, "/vllm/rerank", **RANKED, use_activation="False")
    assert answer["results"][0]["relevance_score"] == LOGITS[2]
    answer = await post(client, "/vllm/rerank", **RANKED, use_activation=None)
    assert answer["results"][0]["relevance_score"] == SCORES[2]
    answer = await post(client, "/v2/rerank", **RANKED, return_documents="false")
    assert "document" not in answer["results"][0]


@pytest.mark.parametrize("flag", ["yes", "", 1, [], {}])
async def test_no_other_word_is_a_flag(client: httpx.AsyncClient, flag: Any) -> None:
    response = await client.post("/v1/rerank", json=RANKED | {"return_documents": flag})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "return_documents"


async def test_rank_fields_say_what_is_read_of_an_object(
    client: httpx.AsyncClient, fake_engine: FakeEngine
) -> None:
    documents = [
        {"title": "a panda", "text": "unread", "body": "is a bear"},
        "a panda is",
        {"body": {"year": 3}},
    ]
    answer = await post(
        client,
        "/v1/rerank",
        query=QUERY,
        documents=documents,
        rank_fields=["body", "title"],
        return_documents=True,
    )
    read = ["is a bear\na panda", "a panda is", '{"year": 3}']
    assert fake_engine.calls[0][0] == tuple((QUERY, text) for text in read)
    assert {result["document"]["text"] for result in answer["results"]} == set(read)


async def test_an_object_without_any_of_the_rank_fields_is_refused(
    client: httpx.AsyncClient, fake_engine: FakeEngine
) -> None:
    documents = [{"title": "a panda"}, {"text": "a panda"}]
    body = {"query": QUERY, "documents": documents, "rank_fields": ["title"]}
    response = await client.post("/v1/rerank", json=body)
    assert response.status_code == 422
    assert "documents[1] has none of the rank_fields" in response.json()["message"]
    assert not fake_engine.calls


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v2/rerank", "top_k", 1),
        ("/v2/rerank", "rank_fields", ["title"]),
        ("/v2/rerank", "truncation", True),
        ("/vllm/rerank", "top_k", 1),
        ("/vllm/rerank", "raw_scores", True),
        ("/infinity/rerank", "top_k", 1),
        ("/rerank", "use_activation", False),
        ("/rerank", "input", ["a"]),
        ("/rerank", "truncate", False),
        ("/voyage/rerank", "top_n", 1),
        ("/voyage/rerank", "instruction", "Which?"),
        ("/weaviate/rerank", "top_n", 1),
        ("/weaviate/rerank", "return_documents", True),
        ("/score", "top_n", 1),
        ("/v2/rerank", "max_chunks_per_doc", 10),
        ("/voyage/v1/rerank", "overlap_tokens", 80),
        ("/v1/rerank", "rewrite_query", True),
        ("/v1/rerank", "truncation_side", "left"),
        ("/v2/rerank", "max_tokens_per_query", 7),
        ("/v2/rerank", "contexts", [{"text": "a"}]),
        ("/v1/rerank", "metadata", ["of the first", "of the second"]),
        ("/v1/rerank", "return_embeddings", True),
        ("/v2/rerank", "sources", [{"type": "INLINE"}]),
        ("/pinecone/rerank", "top_k", 1),
    ],
)
async def test_a_field_of_another_service_is_never_ignored(
    client: httpx.AsyncClient, fake_engine: FakeEngine, path: str, field: str, value: Any
) -> None:
    body = COMPARED if path == "/score" else RANKED
    response = await client.post(path, json=body | {field: value})
    assert response.status_code in (400, 422)
    assert f"'{field}' is a field of another service" in response.text
    assert not fake_engine.calls


@pytest.mark.parametrize("body", [{"top_k": 1, "top_n": 1}, {"top_k": 1, "texts": ["a"]}])
async def test_fields_of_two_services_are_refused(
    client: httpx.AsyncClient, fake_engine: FakeEngine, body: dict[str, Any]
) -> None:
    response = await client.post("/rerank", json=RANKED | body)
    assert response.status_code in (400, 422)
    assert "is a field of another service" in response.text
    assert not fake_engine.calls


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v2/rerank", "top_k", None),
        ("/voyage/rerank", "top_n", 0),
        ("/voyage/rerank", "raw_scores", False),
        ("/rerank", "return_documents", None),
        ("/vllm/rerank", "return_documents", False),
        ("/rerank", "max_chunks_per_doc", 1),
        ("/rerank", "overlap_tokens", 0),
        ("/v1/reranking", "rewrite_query", False),
        ("/rerank", "user", "me"),
    ],
)
async def test_a_field_that_changes_nothing_is_ignored(
    client: httpx.AsyncClient, path: str, field: str, value: Any
) -> None:
    await post(client, path, **RANKED, **{field: value})


async def test_a_field_of_another_service_in_an_object_is_not_ignored_either(
    client: httpx.AsyncClient, fake_engine: FakeEngine
) -> None:
    asked = {"input": RANKED, "parameters": {"top_k": 1}}
    response = await client.post(DASHSCOPE, json=asked)
    assert (response.status_code, fake_engine.calls) == (400, [])
    assert "'parameters.top_k' is a field of another service" in response.json()["message"]
    await post(client, DASHSCOPE, input=RANKED, parameters={"top_k": None})
    response = await client.post(DASHSCOPE, json={"input": QUERY})
    assert response.json()["message"] == "input: send an object"


@pytest.mark.parametrize("path", ["/openai/v1/rerank", "/api/v1/rerank", "/a/b/rerank"])
async def test_a_base_url_of_ones_own_has_the_roots_services(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await post(client, path, **RANKED, top_n=2)
    assert [result["index"] for result in answer["results"]] == ORDER[:2]
    assert [result["index"] for result in await post(client, path, **TEXTS)] == ORDER


async def test_jina_repeats_texts_unless_it_is_told_not_to(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/jina/v1/rerank", **RANKED)
    assert [result["document"]["text"] for result in answer["results"]] == [
        DOCUMENTS[index] for index in ORDER
    ]
    answer = await post(client, "/jina/v1/rerank", **RANKED, return_documents=False)
    assert not any("document" in result for result in answer["results"])


def bedrock(count: dict[str, Any]) -> dict[str, Any]:
    inline = [{"textDocument": {"text": text}, "type": "TEXT"} for text in DOCUMENTS]
    return {
        "queries": [{"textQuery": {"text": QUERY}, "type": "TEXT"}],
        "sources": [{"inlineDocumentSource": each, "type": "INLINE"} for each in inline],
        "rerankingConfiguration": {"bedrockRerankingConfiguration": count},
    }


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/invocations"])
async def test_bedrock_is_told_by_its_sources(client: httpx.AsyncClient, path: str) -> None:
    answer = await post(client, path, **bedrock({"numberOfResults": 2}))
    assert answer == {
        "results": [
            {"index": 2, "relevanceScore": SCORES[2]},
            {"index": 1, "relevanceScore": SCORES[1]},
        ]
    }
    asked = bedrock({})
    asked["sources"][1]["inlineDocumentSource"] = {"type": "JSON", "jsonDocument": {"a": 1}}
    response = await client.post("/rerank", json=asked)
    assert response.status_code == 400
    where = "sources[1].inlineDocumentSource.textDocument.text"
    assert response.json() == {"message": f"{where}: Input should be a valid string"}
    for queries in ([], "a query", [QUERY], bedrock({})["queries"] * 2):
        response = await client.post("/rerank", json=bedrock({}) | {"queries": queries})
        assert response.status_code == 400
        assert "queries" in response.json()["message"]


@pytest.mark.parametrize("inputs", [[], "text", [{"text": QUERY}], [["q", "d"]], [None]])
async def test_pairs_without_their_texts_are_refused(
    client: httpx.AsyncClient, fake_engine: FakeEngine, inputs: Any
) -> None:
    response = await client.post("/invocations", json={"inputs": inputs})
    assert (response.status_code, fake_engine.calls) == (422, [])
    assert response.json()["error"].startswith("inputs")


RANKED = {"query": QUERY, "documents": DOCUMENTS}
COMPARED = {"text_1": QUERY, "text_2": DOCUMENTS}
IN_STEP = {"text_1": [QUERY] * 4, "text_2": DOCUMENTS}
TEXTS = {"query": QUERY, "texts": DOCUMENTS}
PASSAGES = {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS]}
DASHSCOPE = "/api/v1/services/rerank/text-rerank/text-rerank"
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
        ("/vllm/rerank", RANKED | {"truncation_side": "left"}, {"long_documents": "truncate_left"}),
        ("/vllm/rerank", RANKED | {"truncation_side": "right"}, {}),
        ("/vllm/rerank", RANKED | {"max_tokens_per_doc": 7}, {"max_document_tokens": 7}),
        ("/vllm/rerank", RANKED | {"max_tokens_per_query": 7}, {"query_max_length": 7}),
        ("/vllm/rerank", RANKED | {"activation": False}, {"normalize": False}),
        # LlamaIndex's SiliconFlowRerank sends both unasked
        (
            "/rerank",
            RANKED | {"max_chunks_per_doc": 1024, "overlap_tokens": 80},
            {"long_documents": "window"},
        ),
        ("/rerank", RANKED | {"max_chunks_per_doc": 1}, {}),
        ("/rerank", RANKED | {"truncate_prompt_tokens": 7}, {"max_document_tokens": 7}),
        ("/rerank", RANKED | {"max_tokens_per_doc": "7"}, {"max_document_tokens": 7}),
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
        ("/rerank", RANKED | {"truncation": False}, {"long_documents": "refuse"}),
        (DASHSCOPE, {"input": RANKED, "parameters": {"instruct": ASKED}}, {"instruction": ASKED}),
        (
            "/v1/inference/fake",
            {"queries": [QUERY], "documents": DOCUMENTS, "instruction": ASKED},
            {"instruction": ASKED},
        ),
        ("/azion/ai/run/fake", {"queries": QUERY, "items": DOCUMENTS}, {}),
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
