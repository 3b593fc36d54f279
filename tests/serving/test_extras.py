"""What is missing names its cure."""

from __future__ import annotations

import subprocess
import sys

import pytest
from integration.missing import import_without


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("bge_rerank_integrations.serving.app", "fastapi", "serve"),
        ("bge_rerank_integrations.serving.app", "prometheus_client", "serve"),
        ("bge_rerank_integrations.remote", "httpx", "remote"),
        ("bge_rerank_integrations.remote", "tenacity", "remote"),
        ("bge_rerank_integrations.serving.ray_app", "ray", "ray"),
    ],
)
def test_a_missing_extra_is_named(module: str, missing: str, extra: str) -> None:
    error, cause, message = import_without(missing, module)
    assert (error, cause) == ("MissingExtraError", "ModuleNotFoundError")
    assert f'pip install "bge-rerank-integrations[{extra}]"' in message


def test_the_client_loads_no_torch() -> None:
    program = "from bge_rerank_integrations import RemoteReranker; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    modules = set(done.stdout.split())
    assert "httpx" in modules, done.stderr
    assert not modules & {"torch", "transformers", "numpy", "pydantic"}
