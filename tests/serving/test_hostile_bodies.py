"""Bodies that are made to cost the server time and memory."""

from __future__ import annotations

import asyncio
import copy
import json
import time
import tracemalloc

import httpx
import pytest

from bge_rerank_integrations.serving.endpoints import why_refused
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import Serve
from serving.fake_engine import FakeEngine
from serving.test_errors import BODIES, DASHSCOPE, TEXTS, message_of

HEADERS = {"Content-Type": "application/json"}
SIZE = ServerSettings.max_body_bytes - 100


def filled(start: bytes, repeated: bytes, end: bytes) -> bytes:
    """A body of nearly the maximum size."""
    return start + repeated * ((SIZE - len(start) - len(end)) // len(repeated)) + end


HOSTILE = {
    "wrong documents": filled(b'{"query":"q","documents":[1', b",1", b"]}"),
    "documents that are lists": filled(b'{"query":"q","documents":[[]', b",[]", b"]}"),
    "documents without text": filled(b'{"query":"q","documents":[{}', b",{}", b"]}"),
    "too many documents": filled(b'{"query":"q","documents":["a"', b',"a"', b"]}"),
    "one name many times": filled(b'{"query":"q","documents":["a"]', b',"x":1', b"}"),
    "an unknown list": filled(b'{"query":"q","documents":["a"],"x":[1', b",1", b"]}"),
    "unknown nested lists": filled(
        b'{"query":"q","documents":["a"],"x":[1', b"," + b"[" * 150 + b"]" * 150, b"]}"
    ),
    "adjacent strings": filled(b"", b'"', b""),
}


async def longest_pause(until: asyncio.Event) -> float:
    """The longest time for which the event loop did nothing else, in seconds."""
    longest = 0.0
    while not until.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.002)
        longest = max(longest, time.perf_counter() - before)
    return longest


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_body_of_many_values_is_refused_without_being_built(
    client: httpx.AsyncClient, name: str
) -> None:
    is_done = asyncio.Event()
    pause = asyncio.create_task(longest_pause(is_done))
    await asyncio.sleep(0)
    response = await client.post("/rerank", content=HOSTILE[name], headers=HEADERS)
    is_done.set()
    assert response.status_code == 413
    assert "a request may hold 33768 JSON values" in response.text
    # far above what it takes: other programs use the processor as well
    assert await pause < 1


@pytest.mark.parametrize("path", BODIES)
async def test_the_first_of_many_wrong_documents_is_named(
    client: httpx.AsyncClient, path: str
) -> None:
    texts = TEXTS.get(path, "documents")
    body = copy.deepcopy(BODIES[path])
    body.get("input" if path == DASHSCOPE else "", body)[texts].extend([5] * 30_000)
    content = json.dumps(body)
    tracemalloc.start()
    try:
        response = await client.post(path, content=content, headers=HEADERS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"{texts}[2]" in message_of(path, response)
    # an error for each would take a kilobyte or more
    assert peak < 3_000_000


@pytest.mark.parametrize("path", BODIES)
async def test_too_many_values_are_told_in_each_services_words(serve: Serve, path: str) -> None:
    body = json.dumps(BODIES[path] | {"unknown": list(range(20_000))})
    async with serve(FakeEngine(), ServerSettings(max_documents=2)) as client:
        response = await client.post(path, content=body, headers=HEADERS)
    assert response.status_code == 413
    assert message_of(path, response) == "a request may hold 1032 JSON values"


async def test_a_large_body_is_answered(client: httpx.AsyncClient) -> None:
    documents = [{"text": f'"{number}" \\ ' + "ü" * 1_000, "id": number} for number in range(500)]
    response = await client.post("/rerank", json={"query": "q", "documents": documents})
    assert response.status_code == 200
    assert len(response.json()["results"]) == 500


async def test_a_large_body_that_is_not_json_is_told_so(client: httpx.AsyncClient) -> None:
    body = b'{"query": "q", "documents": ["a", "' + b"b" * 100_000 + b'",]}'
    response = await client.post("/rerank", content=body, headers=HEADERS)
    assert response.status_code == 400
    assert response.json()["detail"].startswith("the body is not JSON: ")
    assert "line 1 column " in response.json()["detail"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", 1),
        ("[1, 2]", 3),
        ('{"a": [1, "b"], "c": {"d": null}}', 6),
        ('["a,b[c{", "\\",[{", "\\\\", ",,"]', 5),
        ('["\\\\\\", ,", 1]', 3),
        ('{"\\u005b,": "\\\\"}', 2),
        ('"[,,,"', 1),
        ('"[,,,', 1),
    ],
)
def test_values_are_counted_outside_of_strings(text: str, values: int) -> None:
    assert why_refused(text.encode(), values) is None
    refusal = f"a request may hold {values - 1} JSON values"
    assert why_refused(text.encode(), values - 1) == refusal


async def test_a_long_number_is_refused_without_being_read(client: httpx.AsyncClient) -> None:
    body = filled(b'{"query":"q","documents":["a"],"x":[1', b"," + b"1" * 4_000, b"]}")
    response = await client.post("/rerank", content=body, headers=HEADERS)
    assert response.status_code == 413
    assert "a number may have 100 digits" in response.text


@pytest.mark.parametrize("text", ["1" * 100, "1." + "1" * 100, json.dumps(["1" * 300])])
def test_numbers_of_100_digits_and_digits_in_strings_are_not_refused(text: str) -> None:
    assert why_refused(text.encode(), 3) is None
    assert why_refused(b"[" + b" " * 99 + text.encode() + b"]", 4) is None
