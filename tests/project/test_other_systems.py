"""What Windows and macOS have in place of Linux's, simulated: CI runs ``.ci/smoke`` on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from paths import ROOT, TESTS
from processes import WITH_LIBRARIES, run

# as CPython makes a pair where there are no unix sockets
TCP_PAIR = """
import socket


def pair(family=socket.AF_INET, type=socket.SOCK_STREAM, proto=0):
    with socket.socket(family, type, proto) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.socket(family, type, proto)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
    return one, other


socket.socketpair = pair
"""
TEST_FILE = """
import asyncio
import socket

import pytest
from pytest_socket import SocketConnectBlockedError

from bge_rerank_integrations import RerankEngine


async def test_an_event_loop_runs_and_the_engine_answers_in_it():
    with RerankEngine("tiny", device="cpu") as engine:
        ranking = await engine.arerank("a query", ["a document"])
    assert len(ranking) == 1


@pytest.mark.filterwarnings("ignore:A test tried")
def test_nothing_is_reached_elsewhere():
    # an address for documentation: nobody has it
    with pytest.raises(SocketConnectBlockedError, match="192.0.2.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
"""


def environment(*paths: Path) -> dict[str, str]:
    """Variables of a process that finds modules there."""
    found = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "2"}
    return {**os.environ, **found}


def test_tests_with_an_event_loop_run_where_a_pair_of_sockets_is_a_connection(
    tmp_path: Path,
) -> None:
    (tmp_path / "tcp_pair.py").write_text(TCP_PAIR, "utf-8")
    (tmp_path / "test_loop.py").write_text(TEST_FILE, "utf-8")
    plugins = ("tcp_pair", "pytest_socket", "pytest_asyncio.plugin", "pytest_timeout", "conftest")
    done = run(
        "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))",
        "-q", *(f"-p{name}" for name in plugins), "-pno:cacheprovider",
        "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path),
        str(tmp_path / "test_loop.py"),
        # others that are installed have nothing to do there
        environment=environment(tmp_path, TESTS, ROOT) | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        imported=WITH_LIBRARIES,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("plugin", "device"), [("", "mps"), ("import no_mps\n", "cpu")])
def test_auto_takes_no_apple_gpu_where_smoke_hides_it(plugin: str, device: str) -> None:
    program = (
        "import torch\ntorch.backends.mps.is_available = lambda: True\n"
        f"{plugin}from bge_rerank_integrations.engine.loading.devices import resolve_device\n"
        "print(resolve_device('auto').type)"
    )
    done = run(program, environment=environment(TESTS, ROOT), imported=WITH_LIBRARIES)
    assert done.returncode == 0, done.stderr
    if device == "mps" and done.stdout.strip() == "cuda":
        pytest.skip("CUDA comes before Apple's GPU")
    assert done.stdout.strip() == device


def test_smoke_hides_it_from_the_demo_and_from_the_tests() -> None:
    script = ROOT / ".ci" / "smoke"
    if not script.exists():
        pytest.skip("a source distribution has no .ci")
    branch = script.read_text("utf-8").partition("= Darwin ]; then")[2].partition("else")[0]
    assert 'PYTEST_ADDOPTS="-p no_mps"' in branch
    assert "import no_mps" in branch
