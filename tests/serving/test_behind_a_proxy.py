"""HTTPS, a path below which a proxy shows the server, and addresses that proxies forward."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from bge_rerank_integrations import ConfigurationError
from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.http_server import make_server
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.conftest import Serve
from serving.fake_engine import FakeEngine
from serving.live import live_server

KEY = "a-key-that-nobody-guesses"
HEADERS = {"Authorization": f"Bearer {KEY}"}
BODY = {"query": "a", "documents": ["a", "b"]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key behind the password "open"."""
    folder = tmp_path_factory.mktemp("tls")
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2"
    named = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-passout", "pass:open", "-keyout", str(keyfile), "-out", str(certfile)]
    subprocess.run([*command.split(), *named, *files], check=True, capture_output=True)
    return certfile, keyfile


@pytest.mark.enable_socket
def test_requests_are_answered_over_https(certificate: tuple[Path, Path]) -> None:
    certfile, keyfile = certificate
    tls = {"ssl_certfile": certfile, "ssl_keyfile": keyfile, "ssl_keyfile_password": "open"}
    with live_server(FakeEngine(), **tls) as url:
        trusting = ssl.create_default_context(cafile=str(certfile))
        assert httpx.post(f"{url}/rerank", json=BODY, verify=trusting).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(f"{url}/rerank", json=BODY)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{url.replace('https', 'http')}/rerank", json=BODY)


def test_a_certificate_that_cannot_work_is_refused_before_the_server_starts(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    certfile, keyfile = certificate
    app, settings = create_app(FakeEngine), ServerSettings()  # type: ignore[arg-type]
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for options, message in (
        ({"ssl_certfile": tmp_path / "none"}, "none with its key cannot be read"),
        ({"ssl_certfile": broken}, "broken.pem with its key cannot be read"),
        ({"ssl_certfile": certfile}, "cert.pem with its key cannot be read"),
        ({"ssl_keyfile": keyfile}, "ssl_keyfile was given, and no ssl_certfile"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make_server(app, settings, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["", "/a/search"])
async def test_a_server_below_a_path_is_the_same_server(serve: Serve, prefix: str) -> None:
    settings = ServerSettings(root_path="/a/search", api_keys=(KEY,), max_body_bytes=100)
    async with serve(FakeEngine(), settings) as client:
        for path in ("/", "/health", "/openapi.json"):
            assert (await client.get(prefix + path)).status_code == 200
        assert (await client.get(f"{prefix}/info")).status_code == 401
        for path in ("/rerank", "/v1/rerank"):
            assert (await client.post(prefix + path, json=BODY)).status_code == 401
            response = await client.post(prefix + path, json=BODY, headers=HEADERS)
            assert response.status_code == 200
            large = BODY | {"query": "a" * 100}
            response = await client.post(prefix + path, json=large, headers=HEADERS)
            assert response.status_code == 413
        metrics = (await client.get(f"{prefix}/metrics", headers=HEADERS)).text
        assert 'requests_total{path="/v1/rerank",status="200"} 1.0' in metrics
        openapi = (await client.get(f"{prefix}/openapi.json")).json()
        assert openapi["servers"] == [{"url": "/a/search"}]
        assert "/v1/rerank" in openapi["paths"]
        # relative to the page, wherever a proxy shows it
        page = (await client.get(f"{prefix}/")).text
        assert 'call("info")' in page
        assert 'call("/' not in page


@pytest.mark.parametrize("root_path", ["search", "/search/", "/", "/a b", "https://a/b"])
def test_a_wrong_root_path_is_named(root_path: str) -> None:
    with pytest.raises(ConfigurationError, match="root_path must be empty, or a path"):
        ServerSettings(root_path=root_path)


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("trusted", "logged"), [("127.0.0.1", "203.0.113.9"), ("10.0.0.1,10.0.0.2", "127.0.0.1")]
)
def test_a_clients_address_is_believed_from_trusted_proxies(
    caplog: pytest.LogCaptureFixture, trusted: str, logged: str
) -> None:
    caplog.set_level("INFO")
    with live_server(FakeEngine(), forwarded_allow_ips=trusted) as url:
        httpx.post(f"{url}/rerank", json=BODY, headers={"X-Forwarded-For": "203.0.113.9"})
    clients = [line.client for line in caplog.records if hasattr(line, "client")]
    assert clients == [logged]


@pytest.mark.parametrize(
    "path", ["/rerank/", "//rerank", "/v1/rerank/", "/v1//rerank", "/v1/v1/rerank", "/v1/v2/rerank"]
)
async def test_slashes_and_a_version_too_many_are_read_over(serve: Serve, path: str) -> None:
    async with serve(FakeEngine()) as client:
        response = await client.post(
            f"http://server{path}", json={"query": "q", "documents": ["a", "b"]}
        )
        assert response.status_code == 200
        assert len(response.json()["results"]) == 2
        # one path in the metrics, too
        metrics = (await client.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if line.startswith("bge_rerank_requests_to")]
    assert len(counted) == 1
    assert re.search('path="(/v[12])?/rerank"', counted[0])


@pytest.mark.parametrize("root_path", ["", "/search"])
async def test_head_is_answered_like_get_without_a_body(serve: Serve, root_path: str) -> None:
    async with serve(FakeEngine(), ServerSettings(root_path=root_path)) as client:
        for path in ("/", "/health", "/ready", "/metrics", "/info", "/v1/models", "/openapi.json"):
            got, asked = await client.get(path), await client.head(path)
            assert (asked.status_code, asked.content) == (200, b"")
            assert asked.headers["content-type"] == got.headers["content-type"]
            if path != "/metrics":
                assert asked.headers["content-length"] == got.headers["content-length"]
        assert (await client.head("/rerank")).status_code == 405
        assert (await client.head("/nothing")).status_code == 404


async def test_pages_of_named_origins_may_read_answers(serve: Serve) -> None:
    settings = ServerSettings(cors_origins=("https://app.example",), api_keys=("k",))
    body = {"query": "q", "documents": ["a"]}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    async with serve(FakeEngine(), settings) as client:
        for origin, is_allowed in (("https://app.example", True), ("https://other.example", False)):
            headers = {"Origin": origin}
            # a browser asks without the key
            asked = await client.options("/v1/rerank", headers=headers | asks)
            assert asked.status_code == (200 if is_allowed else 400)
            headers["Authorization"] = "Bearer k"
            answered = await client.post("/v1/rerank", json=body, headers=headers)
            told = answered.headers.get("access-control-allow-origin")
            assert told == (origin if is_allowed else None)
            # an error is read, too
            refused = await client.post("/v1/rerank", json=body, headers={"Origin": origin})
            assert refused.status_code == 401
            told = refused.headers.get("access-control-allow-origin")
            assert told == (origin if is_allowed else None)


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "", 5])
def test_a_wrong_origin_is_named(origin: object) -> None:
    with pytest.raises(ConfigurationError, match="cors_origins"):
        ServerSettings(cors_origins=(origin,))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["api-key", "x-api-key", "Api-Key", "X-API-Key"])
async def test_a_key_may_come_as_azures_and_pinecones_clients_send_it(
    serve: Serve, name: str
) -> None:
    async with serve(FakeEngine(), ServerSettings(api_keys=("one", "two"))) as client:
        for key, status in (("two", 200), ("three", 401), ("", 401), ("Bearer two", 401)):
            response = await client.get("/v1/models", headers={name: key})
            assert response.status_code == status


@pytest.mark.enable_socket
# asyncio leaves a socket that it may not take to garbage collection
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_silent_connections_are_bounded_and_end_with_tls_too(
    certificate: tuple[Path, Path],
) -> None:
    certfile, keyfile = certificate
    tls = {"ssl_certfile": certfile, "ssl_keyfile": keyfile, "ssl_keyfile_password": "open"}
    settings = ServerSettings(max_connections=20, header_timeout_s=1.0)
    context = ssl.create_default_context(cafile=str(certfile))
    with live_server(FakeEngine(), settings, **tls) as url, ExitStack() as opened:
        host, port = url.removeprefix("https://").split(":")
        silent = [
            opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
            for _ in range(400)
        ]
        start = time.monotonic()
        # a probe is answered meanwhile, once there is a place
        deadline = start + 8
        while True:
            try:
                assert httpx.get(f"{url}/health", verify=context, timeout=5).status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
        for each in silent:
            each.settimeout(max(start + 6 - time.monotonic(), 0.01))
            with suppress(ConnectionError):
                assert each.recv(100) == b""
        # and requests, after them
        answered = httpx.post(f"{url}/rerank", json=BODY, verify=context, timeout=5)
        assert answered.status_code == 200


@pytest.mark.enable_socket
def test_a_response_that_is_not_taken_is_dropped_with_tls_too(
    certificate: tuple[Path, Path],
) -> None:
    certfile, keyfile = certificate
    tls = {"ssl_certfile": certfile, "ssl_keyfile": keyfile, "ssl_keyfile_password": "open"}
    settings = ServerSettings(max_body_bytes=2**24, body_timeout_s=0.5, keep_alive_s=1)
    context = ssl.create_default_context(cafile=str(certfile))
    body = json.dumps({"query": "q", "documents": ["a" * 100_000] * 150, "return_documents": True})
    request = (
        "POST /rerank HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    with live_server(FakeEngine(), settings, **tls) as url, socket.socket() as opened:
        host, port = url.removeprefix("https://").split(":")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        opened.settimeout(20)
        opened.connect((host, int(port)))
        with context.wrap_socket(opened, server_hostname=host) as client:
            client.sendall(request.encode())
            time.sleep(2.5)
            received = 0
            with suppress(ConnectionError, ssl.SSLError):
                while block := client.recv(2**20):
                    received += len(block)
    assert received < len(body)


@pytest.mark.enable_socket
def test_a_target_may_be_a_whole_url_and_other_versions_are_refused() -> None:
    settings = ServerSettings(api_keys=(KEY,))
    with live_server(FakeEngine(), settings) as url:
        host, port = url.removeprefix("http://").split(":")

        def answer_to(line: str, *headers: str) -> str:
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                head = "\r\n".join([line, f"Host: {host}", *headers, "Connection: close"])
                connection.sendall(f"{head}\r\n\r\n".encode())
                return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()

        key = f"Authorization: Bearer {KEY}"
        assert answer_to(f"GET {url}/v1/models HTTP/1.1", key).startswith("HTTP/1.1 200 ")
        assert answer_to(f"GET {url}/v1/models HTTP/1.1").startswith("HTTP/1.1 401 ")
        assert answer_to("GET /v1/models HTTP/1.0", key).startswith("HTTP/1.1 200 ")
        for line in ("GET /v1/models HTTP/9.9", "PRI * HTTP/2.0"):
            answer = answer_to(line, key)
            assert answer.startswith("HTTP/1.1 505 ")
            assert answer.count("HTTP/1.1 ") == 1
            assert "connection: close" in answer.lower()


@pytest.mark.enable_socket
def test_a_malformed_request_is_logged_with_its_client_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with live_server(FakeEngine()) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"no HTTP at all\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        metrics = httpx.get(f"{url}/metrics").text
    assert 'bge_rerank_errors_total{cause="malformed_request"} 1.0' in metrics
    assert any("malformed request from 127.0.0.1" in message for message in caplog.messages)
