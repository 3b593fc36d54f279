"""What is refused or fails, said in each service's own words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from typing_extensions import Unpack

from bge_rerank_integrations import (
    DeadlineError,
    EngineClosedError,
    EngineFailedError,
    InputError,
    NonFiniteScoreError,
    OverloadedError,
    ScoringError,
)
from bge_rerank_integrations.ranking import Scores
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.setting_types import CallOverrides
from serving.conftest import Serve
from serving.fake_engine import FakeEngine

CLOUDFLARE = "/client/v4/accounts/a/ai/run/@cf/baai/bge-reranker-base"
DASHSCOPE = "/api/v1/services/rerank/text-rerank/text-rerank"
WATSONX = "/ml/v1/text/rerank"
BODIES: dict[str, dict[str, Any]] = {
    "/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v2/rerank": {"query": "q", "documents": ["a", "b"]},
    "/infinity/rerank": {"query": "q", "documents": ["a", "b"]},
    "/tei/rerank": {"query": "q", "texts": ["a", "b"]},
    "/vllm/rerank": {"query": "q", "documents": ["a", "b"]},
    "/score": {"text_1": "q", "text_2": ["a", "b"]},
    "/v1/score": {"text_1": "q", "text_2": ["a", "b"]},
    "/voyage/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v1/ranking": {"query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}]},
    "/azion/ai/run/fake": {"query": "q", "documents": ["a", "b"]},
    "/v1/reranking": {"query": "q", "input": ["a", "b"]},
    "/inference/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/compatible-api/v1/reranks": {"query": "q", "documents": ["a", "b"]},
    DASHSCOPE: {"input": {"query": "q", "documents": ["a", "b"]}},
    "/v1/inference/fake": {"queries": "q", "documents": ["a", "b"]},
    "/v1/retrieval/fake/reranking": {"query": {"text": "q"}, "passages": [{"text": "a"}] * 2},
    "/weaviate/rerank": {"query": "q", "documents": ["a", "b"]},
    CLOUDFLARE: {"query": "q", "contexts": [{"text": "a"}, {"text": "b"}]},
    "/jina/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/pinecone/rerank": {"query": "q", "documents": [{"text": "a"}, {"text": "b"}]},
    WATSONX: {"query": "q", "inputs": [{"text": "a"}, {"text": "b"}]},
}
# what cannot be scored is answered with 400 here, and with 422 by the others
BAD_REQUEST = {
    "/v2/rerank", "/vllm/rerank", "/score", "/v1/score", "/voyage/v1/rerank",
    "/compatible-api/v1/reranks", DASHSCOPE, CLOUDFLARE, WATSONX,
}  # fmt: skip
TEXTS = {CLOUDFLARE: "contexts", "/tei/rerank": "texts", "/v1/ranking": "passages"}
TEXTS |= {"/v1/reranking": "input", "/v1/retrieval/fake/reranking": "passages"}
TEXTS |= {WATSONX: "inputs", "/score": "text_2", "/v1/score": "text_2"}


def message_of(path: str, response: httpx.Response) -> str:
    """The message, from where the service's clients look for it."""
    body = response.json()
    if path == CLOUDFLARE:
        assert (body["success"], body["result"]) == (False, None)
        assert body["errors"][0]["code"] == response.status_code
        return str(body["errors"][0]["message"])
    if path == WATSONX:
        assert body["status_code"] == response.status_code
        return str(body["errors"][0]["message"])
    if path == "/pinecone/rerank":
        assert body["status"] == response.status_code
        return str(body["error"]["message"])
    if path == "/tei/rerank":
        assert body.keys() == {"error", "error_type"}
        return str(body["error"])
    if path == "/v2/rerank":
        assert body.keys() == {"message"}
        return str(body["message"])
    if path in (DASHSCOPE, "/compatible-api/v1/reranks"):
        assert body.keys() == {"code", "message"}
        return str(body["message"])
    if path == "/v1/inference/fake":
        return str(body["detail"]["error"])
    if path == "/weaviate/rerank":
        assert body.keys() == {"error"}
        return str(body["error"])
    if path == "/v1/reranking" and "message" in body:
        # llama.cpp's form of the same path
        return str(body["message"])
    if path in ("/voyage/v1/rerank", "/v1/reranking") or TEXTS.get(path) == "passages":
        assert body.keys() == {"detail"}
        return str(body["detail"])
    if path in ("/rerank", "/v1/rerank"):
        assert body["message"] == body["detail"] == body["error"]["message"]
    assert body["error"]["code"] == response.status_code
    return str(body["error"]["message"])


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverloadedError("the queue is full"), 429),
        (DeadlineError("too late"), 504),
        (EngineFailedError("it broke"), 503),
        (EngineClosedError("it was closed"), 503),
        (NonFiniteScoreError(1, float("nan")), 500),
    ],
)
async def test_an_engines_error_is_answered_in_the_services_words(
    client: httpx.AsyncClient,
    fake_engine: FakeEngine,
    path: str,
    error: Exception,
    status: int,
) -> None:
    fake_engine.error = error
    response = await client.post(path, json=BODIES[path])
    expected = 424 if (path, status) == ("/tei/rerank", 500) else status
    assert response.status_code == expected
    assert message_of(path, response) == str(error)
    assert response.headers.get("retry-after") == ("1" if status in (429, 503) else None)


@pytest.mark.parametrize(
    ("estimate_s", "told"), [(0.0, "1"), (0.2, "1"), (2.1, "3"), (7.0, "7"), (None, "4")]
)
async def test_the_engine_tells_when_to_try_again(
    serve: Serve, estimate_s: float | None, told: str
) -> None:
    engine = FakeEngine(OverloadedError("full", estimate_s))
    async with serve(engine, ServerSettings(retry_after_s=4)) as client:
        response = await client.post("/rerank", json=BODIES["/rerank"])
    assert (response.status_code, response.headers["retry-after"]) == (429, told)


@pytest.mark.parametrize("path", BODIES)
async def test_a_wrong_document_is_named(client: httpx.AsyncClient, path: str) -> None:
    texts = TEXTS.get(path, "documents")
    body = copy.deepcopy(BODIES[path])
    body.get("input" if path == DASHSCOPE else "", body)[texts].append(5)
    response = await client.post(path, json=body)
    assert response.status_code == (400 if path in BAD_REQUEST else 422)
    assert f"{texts}[2]" in message_of(path, response)


@pytest.mark.parametrize("path", BODIES)
async def test_the_error_of_a_document_keeps_its_index(
    client: httpx.AsyncClient, fake_engine: FakeEngine, path: str
) -> None:
    fake_engine.error = InputError("document 1 is odd", 1)
    response = await client.post(path, json=BODIES[path])
    assert response.status_code == (400 if path in BAD_REQUEST else 422)
    assert message_of(path, response) == "document 1 is odd"


async def test_the_index_counts_the_documents_of_all_pairs(serve: Serve) -> None:
    settings = ServerSettings(max_characters=5)
    async with serve(FakeEngine(), settings) as client:
        body = {"text_1": ["q", "q"], "text_2": ["short", "longer"]}
        response = await client.post("/score", json=body)
    assert response.json()["error"] == {
        "message": "document 1 may hold 5 characters, got 6",
        "type": "invalid_request",
        "param": "documents[1]",
        "code": 400,
    }


class FailingOn(FakeEngine):
    """Fails on one text, as an engine that counts the pairs of a call.

    :param make: the error, from the pair's index.
    """

    def __init__(self, text: str, make: Callable[[int], Exception]) -> None:
        super().__init__()
        self._text, self._make = text, make

    async def ascore_pairs(
        self, pairs: Sequence[tuple[str, str]], **options: Unpack[CallOverrides]
    ) -> Scores:
        for index, (_, document) in enumerate(pairs):
            if document == self._text:
                raise self._make(index)
        return await super().ascore_pairs(pairs, **options)


@pytest.mark.parametrize("path", ["/score", "/v1/score", "/vllm/score", "/azion/ai/run/fake"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda index: ScoringError(f"scoring document {index} failed: document 0", index),
            "scoring document 2 failed: document 0",
        ),
        (
            lambda index: InputError(f"document {index} cannot be tokenized", index),
            "document 2 cannot be tokenized",
        ),
        (
            lambda index: NonFiniteScoreError(index, float("nan")),
            "the score of document 2 must be finite, the model gave nan",
        ),
    ],
)
async def test_message_and_parameter_name_the_same_document_of_two_lists(
    serve: Serve, path: str, make: Callable[[int], Exception], message: str
) -> None:
    async with serve(FailingOn("bad", make)) as client:
        body = {"text_1": ["p", "q", "r"], "text_2": ["a", "b", "bad"]}
        response = await client.post(path, json=body)
    error = response.json()["error"]
    assert (error["message"], error["param"]) == (message, "documents[2]")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b'{"query": NaN}',
        b'{"query": "q", "documents": ["a"], "top_n": NaN, "score": Infinity}',
        b'{"top_n": ' + b"9" * 5_000 + b"}",
        b'"\\ud800"',
        b'{"query": "\\ud800", "documents": []}',
    ],
)
async def test_a_body_that_cannot_be_read_is_never_a_failure_of_the_server(
    client: httpx.AsyncClient, path: str, content: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post(path, content=content, headers=headers)
    assert response.status_code in (400, 422)
    assert message_of(path, response)


async def test_a_line_break_in_a_path_changes_no_error(client: httpx.AsyncClient) -> None:
    path = "/client/v4/accounts/%0A/ai/run/@cf/baai/bge-reranker-base"
    response = await client.post(path, json={"query": "q", "contexts": "a"})
    assert response.status_code == 400
    assert response.json()["success"] is False


async def test_a_line_break_in_a_models_path_is_refused_in_the_services_words(
    client: httpx.AsyncClient,
) -> None:
    for path, body in (
        ("/v1/inference/a%0Ab", {"detail": {"error": "Not Found"}}),
        ("/hf-inference/models/a%0Ab/pipeline/sentence-similarity", {"error": "Not Found"}),
    ):
        response = await client.post(path, json={})
        assert (response.status_code, response.json()) == (404, body)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("path", BODIES)
async def test_another_content_type_is_refused(
    client: httpx.AsyncClient, path: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    response = await client.post(path, content=json.dumps(BODIES[path]), headers=headers)
    assert response.status_code == 415
    assert "application/json" in message_of(path, response)


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_without_a_content_type_is_json_unless_a_page_sends_it(
    client: httpx.AsyncClient, path: str
) -> None:
    content = json.dumps(BODIES[path]).encode()
    assert (await client.post(path, content=content)).status_code == 200
    # a browser may send such a request to another site without asking it first
    headers = {"Origin": "https://elsewhere.example"}
    response = await client.post(path, content=content, headers=headers)
    assert response.status_code == 415


async def test_other_types_of_json_are_json(client: httpx.AsyncClient) -> None:
    content = json.dumps(BODIES["/rerank"]).encode()
    for content_type in ("application/json; charset=utf-8", "application/vnd.api+json"):
        headers = {"Content-Type": content_type}
        assert (await client.post("/rerank", content=content, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", BODIES)
async def test_another_method_is_refused(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert message_of(path, response)


@pytest.mark.parametrize("top_n", [True, "three", "-1", "1.5", "", -1, 1.5, [1], {}, "9" * 5_000])
async def test_a_wrong_top_n_is_refused(client: httpx.AsyncClient, top_n: object) -> None:
    response = await client.post("/rerank", json=BODIES["/rerank"] | {"top_n": top_n})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "top_n"


async def test_a_whole_number_may_be_written_with_a_point_or_as_text(
    client: httpx.AsyncClient,
) -> None:
    for top_n in (1.0, "1"):
        response = await client.post("/rerank", json=BODIES["/rerank"] | {"top_n": top_n})
        assert len(response.json()["results"]) == 1


@pytest.mark.parametrize("path", BODIES)
async def test_no_documents_are_refused(client: httpx.AsyncClient, path: str) -> None:
    body = copy.deepcopy(BODIES[path])
    body.get("input" if path == DASHSCOPE else "", body)[TEXTS.get(path, "documents")].clear()
    response = await client.post(path, json=body)
    assert response.status_code == (400 if path in {*BAD_REQUEST, "/tei/rerank"} else 422)
    assert TEXTS.get(path, "documents") in message_of(path, response)
    if path == "/tei/rerank":
        assert response.json()["error_type"] == "empty"


async def test_the_form_of_texts_gets_teis_errors_on_the_shared_path(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post("/rerank", json={"query": 3, "texts": ["a"]})
    assert response.status_code == 422
    assert response.json() == {
        "error": "query: Input should be a valid string",
        "error_type": "validation",
    }


async def test_scores_need_lists_in_step(client: httpx.AsyncClient) -> None:
    response = await client.post("/score", json={"text_1": ["a", "b"], "text_2": ["c"]})
    assert response.status_code == 400
    assert "got 2 and 1" in response.json()["error"]["message"]


async def test_an_unknown_path_is_named_so(client: httpx.AsyncClient) -> None:
    response = await client.post("/nothing", json={})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found"


async def test_a_failure_of_the_server_says_nothing_of_itself(serve: Serve) -> None:
    async with serve(FakeEngine(ZeroDivisionError("secret")), raise_errors=False) as client:
        response = await client.post("/v2/rerank", json=BODIES["/v2/rerank"])
    assert response.status_code == 500
    assert response.json() == {"message": "the server failed on this request"}
