"""Server and clients over a real socket of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import pytest
import voyageai
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from processes import Process

from bge_rerank_integrations import (
    DeadlineError,
    OverloadedError,
    RemoteError,
    RemoteReranker,
    RerankEngine,
)
from bge_rerank_integrations.langchain import BGECrossEncoder
from bge_rerank_integrations.langchain import BGERerank as LangChainRerank
from bge_rerank_integrations.llama_index import BGERerank as LlamaIndexRerank
from bge_rerank_integrations.remote import DIALECTS
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import probability
from serving.fake_engine import FakeEngine
from serving.live import live_server

pytestmark = pytest.mark.enable_socket

KEY = "the-key-of-this-server"
QUERY = "what is a panda?"
DOCUMENTS = [
    f"document {number}: the panda eats bamboo {'often ' * number}" for number in range(50)
]
# where this server speaks each dialect
BASES = {
    "cloudflare": "/client/v4/accounts/1/ai/run",
    "azion": "/azion/ai/run",
    "voyage": "/voyage",
    "vllm": "/vllm",
}
MODELS = {"cloudflare": "@cf/baai/bge-reranker-base"}
# of one model: the names that these tests' clients have
NAMES = ("m", "rerank-v4.0-pro", "rerank-2.5")


@pytest.fixture(scope="module")
def url(xlmr: str) -> Iterator[str]:
    with (
        RerankEngine(xlmr, dtype="float32", normalize=False, device="cpu") as engine,
        live_server(dict.fromkeys(NAMES, engine), ServerSettings(api_keys=(KEY,))) as url,
    ):
        yield url


def remote(url: str, dialect: str = "jina", **settings: object) -> RemoteReranker:
    base_url, model = url + BASES.get(dialect, ""), MODELS.get(dialect, "m")
    return RemoteReranker(base_url, dialect, model, api_key=KEY, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_gives_the_engines_ranking(
    url: str, engine: RerankEngine, dialect: str
) -> None:
    local = engine.rerank(QUERY, DOCUMENTS, top_n=40)
    async with remote(url, dialect) as reranker:
        for ranking in (
            reranker.rerank(QUERY, DOCUMENTS, top_n=40),
            await reranker.arerank(QUERY, DOCUMENTS, top_n=40),
        ):
            assert [kept.index for kept in ranking] == [kept.index for kept in local]
            assert [kept.score for kept in ranking] == pytest.approx(
                [probability(kept.score) for kept in local], abs=1e-6
            )
            if dialect not in ("tei", "cloudflare"):
                assert ranking.total_tokens > 0


@pytest.mark.parametrize("dialect", ["nebul", "infinity", "vllm", "tei", "nim"])
def test_logits_come_over_the_wire(url: str, engine: RerankEngine, dialect: str) -> None:
    with remote(url, dialect, normalize=False) as reranker:
        scores = [kept.score for kept in reranker.rerank(QUERY, DOCUMENTS[:5])]
    assert scores == pytest.approx([kept.score for kept in engine.rerank(QUERY, DOCUMENTS[:5])])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wrong_key_is_told_in_every_dialect(url: str, dialect: str) -> None:
    base_url, model = url + BASES.get(dialect, ""), MODELS.get(dialect, "m")
    with (
        RemoteReranker(base_url, dialect, model, api_key="not-the-key") as reranker,
        pytest.raises(RemoteError, match="401: the API key is missing or wrong") as caught,
    ):
        reranker.rerank(QUERY, DOCUMENTS)
    assert caught.value.status == 401


def test_an_overloaded_server_is_told_in_every_dialect() -> None:
    with live_server(FakeEngine(OverloadedError("the queue is full"), model="m")) as url:
        for dialect in DIALECTS:
            with (
                remote(url, dialect, max_attempts=1) as reranker,
                pytest.raises(OverloadedError, match="429: the queue is full"),
            ):
                reranker.rerank(QUERY, ["a"])


def test_both_frameworks_rerank_through_the_server(url: str, engine: RerankEngine) -> None:
    expected = [kept.index for kept in engine.rerank(QUERY, DOCUMENTS, top_n=3)]
    with remote(url) as reranker:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
        llama_index = LlamaIndexRerank(top_n=3, reranker=reranker)
        kept = llama_index.postprocess_nodes(nodes, query_str=QUERY)
        assert [node.text for node in kept] == [DOCUMENTS[index] for index in expected]
        assert KEY not in str(llama_index.to_dict()) + repr(llama_index)
        langchain = LangChainRerank(top_n=3, reranker=reranker)
        documents = [Document(page_content=text) for text in DOCUMENTS]
        compressed = langchain.compress_documents(documents, QUERY)
        assert [kept.page_content for kept in compressed] == [DOCUMENTS[i] for i in expected]
        assert KEY not in repr(langchain)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cross_encoder_scores_pairs_through_the_server(
    url: str, engine: RerankEngine, dialect: str
) -> None:
    pairs = [(f"{QUERY} {number % 2}", DOCUMENTS[number]) for number in range(8)]
    with remote(url, dialect) as reranker:
        scores = BGECrossEncoder(reranker=reranker).score(pairs)
    assert scores == pytest.approx([probability(it) for it in engine.score_pairs(pairs)], abs=1e-6)


async def test_both_frameworks_rerank_asynchronously(url: str) -> None:
    async with remote(url) as reranker:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
        llama_index = LlamaIndexRerank(top_n=3, reranker=reranker)
        kept = await llama_index.apostprocess_nodes(nodes, query_str=QUERY)
        langchain = LangChainRerank(top_n=3, reranker=reranker)
        documents = [Document(page_content=text) for text in DOCUMENTS]
        compressed = await langchain.acompress_documents(documents, QUERY)
        assert [node.text for node in kept] == [kept.page_content for kept in compressed]


@pytest.mark.parametrize("make", [cohere.Client, cohere.ClientV2])
def test_coheres_own_client_is_answered(url: str, engine: RerankEngine, make: Any) -> None:
    with httpx.Client() as http:
        client = make(api_key=KEY, base_url=url, httpx_client=http)
        answer = client.rerank(model="rerank-v4.0-pro", query=QUERY, documents=DOCUMENTS, top_n=3)
        local = engine.rerank(QUERY, DOCUMENTS, top_n=3)
        assert [(result.index, result.relevance_score) for result in answer.results] == [
            (kept.index, pytest.approx(probability(kept.score), abs=1e-6)) for kept in local
        ]
        with pytest.raises(cohere.UnauthorizedError):
            make(api_key="not-the-key", base_url=url, httpx_client=http).rerank(
                model="m", query=QUERY, documents=DOCUMENTS
            )


def test_coheres_own_client_understands_a_refusal(url: str) -> None:
    with httpx.Client() as http:
        client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=http)
        with pytest.raises(cohere.BadRequestError) as caught:
            client.rerank(model="m", query=QUERY, documents=[], top_n=3)
    assert "documents" in caught.value.body["message"]


def test_voyages_own_client_is_answered(url: str, engine: RerankEngine) -> None:
    client = voyageai.Client(api_key=KEY, base_url=f"{url}/voyage/v1")
    answer = client.rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=3)
    local = engine.rerank(QUERY, DOCUMENTS, top_n=3)
    assert [
        (result.index, result.document, result.relevance_score) for result in answer.results
    ] == [
        (kept.index, DOCUMENTS[kept.index], pytest.approx(probability(kept.score), abs=1e-6))
        for kept in local
    ]
    assert answer.total_tokens > 0


def test_a_connection_that_drops_leaves_the_queue() -> None:
    engine = FakeEngine(delay_s=30, model="m")
    with live_server(engine) as url:
        with pytest.raises(DeadlineError), remote(url, timeout_s=0.3) as reranker:
            reranker.rerank(QUERY, ["a"])
        deadline = time.monotonic() + 5
        while not engine.cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
    assert engine.cancelled == 1


async def test_many_clients_get_their_own_answers(url: str, engine: RerankEngine) -> None:
    async with remote(url) as reranker:

        async def ask(number: int) -> None:
            documents = DOCUMENTS[number % 7 : number % 7 + 5]
            ranking = await reranker.arerank(f"{QUERY} {number}", documents)
            local = engine.rerank(f"{QUERY} {number}", documents)
            assert [kept.index for kept in ranking] == [kept.index for kept in local]

        await asyncio.gather(*map(ask, range(64)))


MAIN = "from bge_rerank_integrations.cli import main; main()"


def start(*arguments: str, **environment: str) -> Process:
    return Process(
        MAIN,
        "serve",
        "--port",
        "0",
        *arguments,
        environment=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )


def url_of(process: Process) -> str:
    """Where the server of a process listens, once it is ready."""
    line = next(line for line in process.stderr if "running on" in line)
    url = line.partition("running on ")[2].split()[0]
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return url


def test_the_command_serves_and_drains(xlmr: str) -> None:
    process = start(
        "--model",
        f"m={xlmr}",
        "--dtype=float32",
        BGE_RERANK_API_KEY=KEY,
        BGE_RERANK_MAX_LENGTH="256",
    )
    try:
        url = url_of(process)
        assert httpx.get(f"{url}/info").status_code == 401
        info = httpx.get(f"{url}/info", headers={"Authorization": f"Bearer {KEY}"}).json()
        assert info["max_input_length"] == 256
        answers: list[int] = []

        def ask() -> None:
            with remote(url) as reranker:
                documents = [f"{text} {n} {'panda ' * 300}" for text in DOCUMENTS for n in range(6)]
                answers.append(len(reranker.rerank(QUERY, documents)))

        asking = threading.Thread(target=ask)
        asking.start()
        headers = {"Authorization": f"Bearer {KEY}"}
        while "requests_in_progress 1.0" not in httpx.get(f"{url}/metrics", headers=headers).text:
            assert asking.is_alive()
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers == [300]
        process.wait(30)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    finally:
        process.end()


def test_the_command_says_what_it_serves_where_and_outlives_a_stalled_log(xlmr: str) -> None:
    process = start("--model", f"m={xlmr}", "--device", "cpu", "--dtype", "float32")
    try:
        loaded = next(line for line in process.stderr if "loaded m on cpu in float32" in line)
        assert "bge_rerank_integrations" in loaded
        line = next(line for line in process.stderr if "ready: open http://127.0.0.1:" in line)
        url = line.partition("open ")[2].split()[0]
        assert httpx.get(url).status_code == httpx.get(f"{url}docs").status_code == 200
        # from now on nobody reads the log; a dozen lines fill the smallest pipe
        fcntl = pytest.importorskip("fcntl")
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4_096)
        with httpx.Client(base_url=url, timeout=10) as client:
            for _ in range(100):
                assert client.get("/nowhere").status_code == 404
            assert client.get("/health").status_code == 200
            asked = {"query": QUERY, "documents": ["a", "b"]}
            assert client.post("/rerank", json=asked).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.end()


def test_a_model_that_cannot_be_loaded_ends_the_command() -> None:
    process = start("--model", "nobody/nothing")
    try:
        assert process.wait() == 1
        shown = process.stderr.read()
    finally:
        process.end()
    assert shown.splitlines()[-1].startswith("error: nobody/nothing is not in the local cache")
    assert "Traceback" not in shown
