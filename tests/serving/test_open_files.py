"""The limit of open files, which bounds the connections of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bge_rerank_integrations.serving.http_server import raise_open_files
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import FakeEngine
from serving.live import live_server

resource = pytest.importorskip("resource")
LOW = 500


def soft_limit() -> int:
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit


@pytest.fixture(autouse=True)
def hard_limit() -> Iterator[int]:
    """The hard limit; the soft one is low, as many systems have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOW, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("needed", "limit"), [(LOW - 1, LOW), (LOW + 1, LOW + 1)])
def test_the_soft_limit_is_raised_if_it_is_too_low(
    caplog: pytest.LogCaptureFixture, needed: int, limit: int
) -> None:
    raise_open_files(needed)
    assert soft_limit() == limit
    assert not caplog.records


def test_a_hard_limit_that_is_too_low_is_told(
    caplog: pytest.LogCaptureFixture, hard_limit: int
) -> None:
    if hard_limit == resource.RLIM_INFINITY:
        pytest.skip("this system has no hard limit")
    raise_open_files(hard_limit + 1)
    assert soft_limit() == hard_limit
    message = f"this process may open {hard_limit} files, and its connections need {hard_limit + 1}"
    assert caplog.messages[0].startswith(message)


@pytest.mark.enable_socket
def test_a_server_may_open_what_its_connections_need() -> None:
    with live_server(FakeEngine(), ServerSettings(max_connections=LOW)):
        assert soft_limit() >= LOW + 100
