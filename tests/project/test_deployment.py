"""What lies in ``deploy/`` fits the server, and its start script starts one."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from paths import ROOT
from serving.conftest import served
from serving.fake_engine import FakeEngine
from serving.test_live import url_of

from bge_rerank_integrations.cli.serve import DEFAULT_PORT, serve
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.setting_types import API_KEY_FILE_VARIABLE

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".md")
GUIDE = ROOT / "docs" / "deployment.md"
OF_DOCKER = {"--build-arg", "--gpus", "--read-only", "--tmpfs"}
PROBED = {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"}
# a trace that cannot be sent holds a server's end for as long, OTEL_EXPORTER_OTLP_TIMEOUT
LAST_TRACES_S = 10


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


def pod() -> Any:
    return read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]


def options() -> dict[str, Any]:
    """The options of ``bge-rerank serve`` by name, with their variables."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(serve).parameters.items():
        option = parameter.annotation.__metadata__[0]
        found[f"--{name.replace('_', '-')}"] = option.envvar
    return found


def settings_lines(path: Path) -> str:
    """The lines of a file without comments."""
    lines = path.read_text("utf-8").splitlines()
    return "\n".join(re.split(r"(?:^|\s)#", line)[0] for line in lines)


@pytest.mark.parametrize("path", [*FILES, GUIDE], ids=lambda path: path.name)
def test_options_and_variables_are_the_servers(path: Path) -> None:
    text = path.read_text("utf-8")
    commands = [text] if path is GUIDE else re.findall(r"(?:-rerank serve|args:|command:).*", text)
    given = {option for each in commands for option in re.findall(r"(?<!-)--[a-z][a-z-]*", each)}
    assert given <= options().keys() | OF_DOCKER
    variables = set(re.findall(r"BGE_RERANK_[A-Z_]*[A-Z]", text))
    assert variables <= {*options().values(), "BGE_RERANK_API_KEY"}


def test_the_start_script_passes_options_of_the_server() -> None:
    assert set(re.findall(r"--[a-z-]+", settings_lines(DEPLOY / "start.sh"))) == {
        "--host",
        "--port",
        "--log-format",
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_manifests_are_valid_for_kubernetes(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text("utf-8")):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_the_probes_ask_the_paths_that_answer_without_a_key() -> None:
    (container,) = pod()["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == DEFAULT_PORT
    for probe, path in PROBED.items():
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
    (service_port,) = read("kubernetes/service.yaml")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]


def test_the_grace_is_longer_than_the_requests_in_progress() -> None:
    (container,) = pod()["containers"]
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = ServerSettings.timeout_s + LAST_TRACES_S
    assert pod()["terminationGracePeriodSeconds"] >= pre_stop + needed
    grace = read("compose.yaml")["services"]["rerank"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= needed
    unit = (DEPLOY / "bge-rerank.service").read_text("utf-8")
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) >= needed


def test_names_and_labels_agree() -> None:
    read_all = [read(f"kubernetes/{path.name}") for path in MANIFESTS]
    manifests = {manifest["kind"]: manifest for manifest in read_all}
    assert set(manifests) == {"Deployment", "Service", "PodDisruptionBudget", "Secret"}
    deployment = manifests["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"] < deployment["replicas"]
    secret = next(each["secret"] for each in pod()["volumes"] if "secret" in each)
    assert secret["secretName"] == manifests["Secret"]["metadata"]["name"]
    (container,) = pod()["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables[API_KEY_FILE_VARIABLE] == f"{mounts['api-keys']}/api-keys"
    # no key that everybody knows: the server refuses to start with this one
    assert manifests["Secret"]["stringData"] == {"api-keys": ""}


def test_containers_are_unprivileged_and_write_to_mounts_alone() -> None:
    (container,) = pod()["containers"]
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    (user,) = set(re.findall(r"(?:--uid |^USER |:)(\d{5})\b", dockerfile, re.MULTILINE))
    assert pod()["securityContext"]["runAsUser"] == int(user)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    service = read("compose.yaml")["services"]["rerank"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    cache = re.findall(r"HF_HOME=(\S+)", dockerfile)
    assert [each.split(":")[1] for each in service["volumes"]] == cache
    written = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert written == {*cache, *service["tmpfs"]}


def test_compose_publishes_the_port_to_its_machine_alone() -> None:
    services = read("compose.yaml")["services"]
    assert services["rerank"]["ports"] == [f"127.0.0.1:{DEFAULT_PORT}:{DEFAULT_PORT}"]
    scrape = read("prometheus/prometheus.yml")["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": [f"rerank:{DEFAULT_PORT}"]}]
    secrets = read("compose.yaml")["secrets"]
    assert set(secrets) == {"api-keys", "metrics-key"}
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/metrics-key"
    variables = services["rerank"]["environment"]
    assert variables == {API_KEY_FILE_VARIABLE: "/run/secrets/api-keys"}


async def test_alerts_and_guide_name_metrics_of_the_server() -> None:
    async with served(FakeEngine()) as client:
        await client.post("/rerank", json={"query": "a", "documents": ["a"]})
        metrics = (await client.get("/metrics")).text
    known = set(re.findall(r"^(?:# TYPE )?(\w+)[{ ]", metrics, re.MULTILINE))
    rules = read("prometheus/alerts.yml")["groups"][0]["rules"]
    named = {
        name
        for text in [*(rule["expr"] for rule in rules), GUIDE.read_text("utf-8")]
        for name in re.findall(r"\b(?:bge_rerank|process|python)_[a-z_]+", text)
    }
    assert len(named) > 5
    # the package has the same beginning
    assert named - {"bge_rerank_integrations"} <= known


def test_the_image_holds_what_it_copies() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {f"!{source.removeprefix('./')}" for source in copied} == {
        line for line in ignored if line.startswith("!")
    }
    assert f"EXPOSE {DEFAULT_PORT}" in dockerfile
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (installed,) = re.findall(r'"\.\[(.*)\]"', dockerfile)
    assert set(installed.split(",")) <= extras["optional-dependencies"].keys()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_accepts_the_unit_and_finds_it_confined(tmp_path: Path) -> None:
    unit = (DEPLOY / "bge-rerank.service").read_text("utf-8")
    assert "ExecStart=/opt/bge-rerank/bin/bge-rerank " in unit
    # the command of this machine: the one of the unit is not installed here
    here = tmp_path / "bge-rerank.service"
    here.write_text(unit.replace("/opt/bge-rerank/bin/bge-rerank", sys.executable), "utf-8")
    for check in (["verify"], ["security", "--offline=yes", "--threshold=25"]):
        done = subprocess.run(
            ["systemd-analyze", *check, str(here)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr


@pytest.mark.enable_socket
def test_the_start_script_starts_a_server_that_reranks(tmp_path: Path, xlmr: str) -> None:
    keys = tmp_path / "api-keys"
    keys.write_text("old-key\nnew-key\n")
    process = subprocess.Popen(
        [DEPLOY / "start.sh", "--model", xlmr, "--device=cpu"],
        stderr=subprocess.PIPE,
        env={
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "BGE_RERANK_HOST": "127.0.0.1",
            "BGE_RERANK_PORT": "0",
            API_KEY_FILE_VARIABLE: str(keys),
        },
        encoding="utf-8",
    )
    try:
        url = url_of(process)
        body = {"query": "what is a panda?", "documents": ["a bear", "a bamboo"]}
        assert httpx.post(f"{url}/v1/rerank", json=body).status_code == 401
        for key in ("old-key", "new-key"):
            headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "mine"}
            answer = httpx.post(f"{url}/v1/rerank", json=body, headers=headers)
            assert {result["index"] for result in answer.json()["results"]} == {0, 1}
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=20)
        logged = [json.loads(line) for line in shown.splitlines()]
        requests = [line for line in logged if line["logger"].endswith("access_log")]
        assert [line["status"] for line in requests] == [401, 200, 200]
        assert (requests[1]["request_id"], requests[1]["documents"]) == ("mine", 2)
        assert requests[1]["tokens"] > 2
        assert not re.search("panda|bamboo|-key", shown)
    finally:
        process.kill()
        process.communicate()
