"""``bge-rerank serve``, without a socket; tests/serving/test_live.py has one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from bge_rerank_integrations.cli.app import app

WARNING = "may be reached by others, and no key is asked for"

Serve = Callable[..., Result]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[uvicorn.Config]:
    """The settings of the servers that were started; none listens."""
    started: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: started.append(server.config))
    return started


@pytest.fixture
def serve(started: list[uvicorn.Config], monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.delenv("BGE_RERANK_API_KEY", raising=False)
    return lambda *arguments, **given: CliRunner().invoke(app, ["serve", *arguments], **given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "2001:db8::1", "example.org"])
def test_a_public_address_without_a_key_is_warned_of(
    serve: Serve, started: list[uvicorn.Config], host: str
) -> None:
    result = serve("--host", host)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"warning: {host} {WARNING}\n"
    assert [config.host for config in started] == [host]


@pytest.mark.parametrize("host", [None, "127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(
    serve: Serve, started: list[uvicorn.Config], host: str | None
) -> None:
    result = serve(*([] if host is None else ["--host", host]))
    assert (result.exit_code, result.output) == (0, "")
    assert [config.host for config in started] == [host or "127.0.0.1"]


def test_a_key_on_the_command_line_ends_the_warning(
    serve: Serve, started: list[uvicorn.Config]
) -> None:
    assert serve("--host", "0.0.0.0", "--api-key", "k").output == ""
    assert len(started) == 1


def test_a_key_in_the_environment_ends_the_warning(
    serve: Serve, started: list[uvicorn.Config]
) -> None:
    assert serve("--host", "0.0.0.0", env={"BGE_RERANK_API_KEY": "k"}).output == ""
    assert len(started) == 1
