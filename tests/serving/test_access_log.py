"""What a server logs of its requests, and their ids."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from processes import run

from bge_rerank_integrations import Scores, ScoringError
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.http_server import add_request_id
from bge_rerank_integrations.serving.settings import LogFormat, ServerSettings
from serving.conftest import Serve
from serving.fake_engine import FakeEngine

BODY = {"query": "the secret query", "documents": ["a secret document", "b"]}
KEY = "the-secret-key"
LOGGER = "bge_rerank_integrations.serving.access_log"


@pytest.fixture(autouse=True)
def _shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOGGER]


@pytest.mark.parametrize("given", ["a", "4711:é".encode().hex(), "x" * 128, "trace/1;b=~!"])
async def test_a_sane_request_id_comes_back(client: httpx.AsyncClient, given: str) -> None:
    for path, body in (("/rerank", BODY), ("/rerank", {}), ("/nowhere", BODY)):
        response = await client.post(path, json=body, headers={"X-Request-ID": given})
        assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", "caf\xe9", "a\tb"])
async def test_a_request_without_a_sane_id_gets_one(
    client: httpx.AsyncClient, given: str | None
) -> None:
    headers = {} if given is None else {"X-Request-ID": given.encode("latin-1")}
    first = await client.post("/rerank", json=BODY, headers=headers)
    second = await client.get("/health", headers=headers)
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(len(each) == 32 and each.isalnum() for each in ids)


async def test_a_failure_that_nobody_foresaw_has_the_id_too(serve: Serve) -> None:
    async with serve(FakeEngine(RuntimeError("boom")), raise_errors=False) as client:
        response = await client.post("/rerank", json=BODY, headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.headers.get_list("x-request-id")) == (500, ["mine"])


async def test_a_request_is_one_line_of_sizes_times_and_names(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve({"mine": FakeEngine()}, ServerSettings(api_keys=(KEY,))) as client:
        headers = {"X-Request-ID": "mine", "Authorization": f"Bearer {KEY}"}
        await client.post("/v1/rerank?secret=query", json=BODY, headers=headers)
    (line,) = lines(caplog)
    fields = {name: getattr(line, name) for name in ("method", "path", "status", "model", "client")}
    assert fields == {
        "method": "POST",
        "path": "/v1/rerank",
        "status": 200,
        "model": "mine",
        "client": "127.0.0.1",
    }
    assert (line.documents, line.tokens) == (2, 20)
    assert 0 <= line.seconds < 10
    assert "secret" not in str(vars(line))


async def test_refusals_and_failures_are_logged_with_their_status(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(FakeEngine(), ServerSettings(api_keys=(KEY,))) as client:
        await client.post("/rerank", json=BODY)
    async with serve(FakeEngine(ScoringError("it failed", 1))) as client:
        await client.post("/rerank", json=BODY)
    async with serve(FakeEngine(RuntimeError("boom")), raise_errors=False) as client:
        await client.post("/rerank", json=BODY)
    assert [line.status for line in lines(caplog)] == [401, 500, 500]
    assert not any(hasattr(line, "tokens") for line in lines(caplog))


async def test_probes_are_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/health", "/ready", "/metrics", "/info"):
        await client.get(path)
    assert [line.path for line in lines(caplog)] == ["/info"]


async def test_what_is_logged_while_a_request_is_answered_has_its_id(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Talkative(FakeEngine):
        async def ascore(self, *arguments: Any, **options: Any) -> Scores:
            logging.getLogger("bge_rerank_integrations.engine").warning("it is slow")
            return await super().ascore(*arguments, **options)

    async with serve(Talkative()) as client:
        caplog.handler.addFilter(add_request_id)
        await client.post("/rerank", json=BODY, headers={"X-Request-ID": "mine"})
        caplog.handler.removeFilter(add_request_id)
    logged = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.request_id for record in logged] == ["mine", "mine"]


async def test_a_path_cannot_forge_a_line(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/a%0Ab%1B[0m" + "c" * 1_000)
    (line,) = lines(caplog)
    assert line.getMessage().startswith("GET /a%0Ab%1B%5B0mccc")
    assert len(line.path) == 200


def log_of_a_process(log_format: LogFormat) -> list[str]:
    program = """if True:
        import logging, sys, warnings
        from bge_rerank_integrations.serving.http_server import configure_logging
        from bge_rerank_integrations.serving.settings import LogFormat, LogLevel
        configure_logging(LogFormat(sys.argv[1]), LogLevel.INFO)
        own = logging.getLogger("bge_rerank_integrations.serving")
        own.debug("too much")
        own.info("GET /a %d", 200, extra={"seconds": 0.5, "client": "::1"})
        logging.getLogger("uvicorn.error").info("it listens", extra={"color_message": "it"})
        logging.getLogger("other").info("too much")
        logging.getLogger("other").warning("it is old")
        warnings.warn("so is this")
    """
    return run(program, log_format.value).stderr.splitlines()


def test_the_log_as_text_shows_the_fields_after_the_message() -> None:
    shown = [line.split(" ", 2)[-1] for line in log_of_a_process(LogFormat.TEXT)]
    assert shown[:3] == [
        "INFO bge_rerank_integrations.serving: GET /a 200 seconds=0.5 client=::1",
        "INFO uvicorn.error: it listens",
        "WARNING other: it is old",
    ]
    assert shown[3].startswith("WARNING py.warnings: ")
    assert "so is this" in shown[3]


def test_the_log_as_json_is_one_object_a_line() -> None:
    logged = [json.loads(line) for line in log_of_a_process(LogFormat.JSON)]
    times = [datetime.fromisoformat(line.pop("time")) for line in logged]
    assert all(time.tzinfo == timezone.utc for time in times)
    assert logged[:3] == [
        {
            "level": "INFO",
            "logger": "bge_rerank_integrations.serving",
            "message": "GET /a 200",
            "seconds": 0.5,
            "client": "::1",
        },
        {"level": "INFO", "logger": "uvicorn.error", "message": "it listens"},
        {"level": "WARNING", "logger": "other", "message": "it is old"},
    ]
    assert "so is this" in logged[3]["message"]


async def test_a_forwarded_address_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(FakeEngine)
    given = "1.2.3.4 POST /admin 200 tokens=9 user=root\x1b[0m" + "x" * 200
    transport = httpx.ASGITransport(app, client=(given, 1))
    caplog.set_level(logging.INFO)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        await client.get("/info")
    (line,) = lines(caplog)
    assert line.client.startswith("1.2.3.4%20POST%20%2Fadmin")
    assert len(line.client) == 64
    assert " " not in line.client


def test_a_pipe_that_nobody_reads_stops_no_request() -> None:
    program = """if True:
        import logging, sys, time
        from bge_rerank_integrations.serving.http_server import configure_logging
        from bge_rerank_integrations.serving.settings import LogFormat, LogLevel
        configure_logging(LogFormat.TEXT, LogLevel.INFO)
        own = logging.getLogger("bge_rerank_integrations")
        start = time.monotonic()
        for number in range(30_000):
            own.info("%d %s", number, "x" * 100)
        print(time.monotonic() - start, flush=True)
        sys.stdin.readline()
        own.info("the last")
        logging.shutdown()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # nobody has read its log yet, which fills the pipe
        assert float(process.stdout.readline()) < 20
        _, logged = process.communicate("\n", timeout=30)
    assert process.returncode == 0
    kept = logged.splitlines()
    assert kept[0].endswith("0 " + "x" * 100)
    assert any(re.search(r"\d+ lines of the log were dropped", line) for line in kept)
