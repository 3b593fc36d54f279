"""The server on a Ray cluster of this machine; runs where the extra ``ray`` is installed."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from paths import ROOT
from pydantic import ValidationError

from bge_rerank_integrations import (
    ConfigurationError,
    EngineConfig,
    OverloadedError,
    Ranking,
    RemoteError,
    RemoteReranker,
    RerankEngine,
)
from bge_rerank_integrations.serving.settings import ServerSettings
from bge_rerank_integrations.settings import SETTINGS, split_settings
from serving.conftest import probability

psutil = pytest.importorskip("psutil")
with warnings.catch_warnings():
    # Ray's own libraries warn of each other
    warnings.simplefilter("ignore")
    ray = pytest.importorskip("ray")
    from ray import serve

    from bge_rerank_integrations.serving.ray_app import RayArguments, app

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(180),
]

QUERY = "what is a panda?"
DOCUMENTS = [f"document {n}: the panda eats bamboo {'often ' * n}" for n in range(20)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # replicas import the package from where this process does
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def deploy(url: str, xlmr: str) -> Callable[..., str]:
    """Deploy the tiny encoder, in two replicas if nothing else is said.

    What is deployed already stays: Ray would replace every replica.
    """
    deployed: list[dict[str, Any]] = [{}]

    def run(**arguments: Any) -> str:
        default = {"model": xlmr, "dtype": "float32", "replicas": 2, "cpus_per_replica": 0.25}
        default["no_api_key"] = True
        given = {**default, **arguments}
        if given != deployed[0]:
            serve.run(app(RayArguments(**given)))
            deployed[0] = given
        return url

    return run


def replicas() -> list[Any]:
    """The processes of the replicas that this process's cluster runs."""
    children = psutil.Process().children(recursive=True)
    # of one that has ended, and that nobody has waited for yet, there is no command line
    children = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in children if "ServeReplica" in " ".join(child.cmdline())]


def expected(engine: RerankEngine, query: str) -> list[tuple[int, Any]]:
    ranking = engine.rerank(query, DOCUMENTS)
    return [(kept.index, pytest.approx(probability(kept.score), abs=1e-5)) for kept in ranking]


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return [(kept.index, kept.score) for kept in ranking]


def patiently(reranker: RemoteReranker, query: str) -> Ranking:
    """Ask again when the replica that had the question died: Ray says so with a 500."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return reranker.rerank(query, DOCUMENTS)
        except RemoteError as error:
            if error.status != 500 or time.monotonic() > deadline:
                raise


def test_two_replicas_answer_as_the_engine_does(
    deploy: Callable[..., str], engine: RerankEngine
) -> None:
    with RemoteReranker(deploy()) as reranker, ThreadPoolExecutor(8) as pool:
        queries = [f"{QUERY} {number}" for number in range(80)]
        rankings = list(pool.map(lambda query: reranker.rerank(query, DOCUMENTS), queries))
    assert len(replicas()) == 2
    for query, ranking in zip(queries, rankings, strict=True):
        assert pairs(ranking) == expected(engine, query)


def test_a_response_has_one_id_the_clients_own(deploy: Callable[..., str]) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS[:2]}
    url = deploy()
    answered = httpx.post(f"{url}/rerank", json=body, headers={"X-Request-ID": "mine-1"})
    assert answered.headers.get_list("x-request-id") == ["mine-1"]
    assert len(httpx.post(f"{url}/rerank", json=body).headers.get_list("x-request-id")) == 1


def test_limits_of_the_server_are_arguments() -> None:
    given = {"max_body_bytes": "1000", "max_characters": "50", "body_timeout_s": "3"}
    hosts = {"allowed_hosts": ["a.example"], "no_api_key": "true"}
    built = app(RayArguments.model_validate(given | hosts))
    limits = built._bound_deployment.init_args[2]
    assert (limits.max_body_bytes, limits.max_characters, limits.body_timeout_s) == (1000, 50, 3)
    assert limits.allowed_hosts == ("a.example",)


def test_a_killed_replica_comes_back_while_clients_try_again(
    deploy: Callable[..., str], engine: RerankEngine
) -> None:
    with RemoteReranker(deploy(), max_attempts=50) as reranker, ThreadPoolExecutor(4) as pool:
        before = {process.pid for process in replicas()}
        asked = [pool.submit(patiently, reranker, f"{QUERY} {number}") for number in range(200)]
        asked[20].result()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        for number, future in enumerate(asked):
            assert pairs(future.result()) == expected(engine, f"{QUERY} {number}")
        deadline = time.monotonic() + 60
        while len({process.pid for process in replicas()} - {victim}) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_rolling_redeployment_loses_no_request(
    deploy: Callable[..., str], engine: RerankEngine
) -> None:
    stop = threading.Event()

    def ask(reranker: RemoteReranker) -> int:
        count = 0
        while not stop.is_set():
            assert pairs(reranker.rerank(QUERY, DOCUMENTS)) == expected(engine, QUERY)
            count += 1
        return count

    with RemoteReranker(deploy()) as reranker, ThreadPoolExecutor(4) as pool:
        before = {process.pid for process in replicas()}
        asking = [pool.submit(ask, reranker) for _ in range(4)]
        try:
            deploy(max_documents=100)
            time.sleep(1)
        finally:
            stop.set()
        assert min(future.result() for future in asking) > 0
    assert not before & {process.pid for process in replicas()}


# one deployment for two tests
LIMITED: dict[str, Any] = {
    "replicas": 1,
    "max_ongoing_requests": 1,
    "max_queued_requests": 1,
    "max_length": "32",
    "engine": {"max_document_tokens": 6},
}


def test_overload_is_refused_and_passes(deploy: Callable[..., str]) -> None:
    url = deploy(**LIMITED)
    long_documents = [f"{text} {'panda ' * 400}" for text in DOCUMENTS * 5]

    def ask(number: int) -> str:
        try:
            reranker.rerank(f"{QUERY} {number}", long_documents)
        except OverloadedError:
            return "refused"
        except RemoteError as error:
            return "refused" if error.status == 503 else f"failed: {error}"
        return "answered"

    with RemoteReranker(url, max_attempts=1) as reranker, ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(ask, range(24)))
        assert {"answered", "refused"} == set(outcomes)
        assert ask(0) == "answered"


def test_the_command_lines_texts_become_settings() -> None:
    arguments = RayArguments.model_validate({"replicas": "2", "gpus_per_replica": "0.5"})
    assert (arguments.replicas, arguments.gpus_per_replica) == (2, 0.5)
    # a server's own default
    assert arguments.engine == {"max_wait_s": 5.0}
    scaled = app(RayArguments(replicas=1, max_replicas=8, max_ongoing_requests=10, no_api_key=True))
    assert scaled is not None


# none at its default
SETTINGS_OF_ENGINE: dict[str, Any] = {
    "revision": "main",
    "recipe": "bge-reranker-base",
    "device": ("cpu", "cpu"),
    "dtype": "float32",
    "cutoff_layers": (8, 16),
    "compress_ratio": 2,
    "compress_layers": (4,),
    "cache_folder": "/models",
    "local_files_only": True,
    "max_batch_tokens": 4096,
    "max_cached_tokens": 0,
    "max_queued_pairs": 10,
    "max_length": 256,
    "query_max_length": 32,
    "max_document_tokens": 100,
    "long_documents": "window",
    "instruction": "Does the passage answer?",
    "calibration": "calibration.json",
    "queue_timeout_s": 1.5,
    "max_wait_s": 2.5,
}
TEXTS = {
    name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    for name, value in SETTINGS_OF_ENGINE.items()
}


@pytest.mark.parametrize(
    "given",
    [
        SETTINGS_OF_ENGINE,
        {"engine": SETTINGS_OF_ENGINE},
        TEXTS,
        {"engine": TEXTS},
        {"engine": SETTINGS_OF_ENGINE | {"max_length": 64}, "max_length": "256"},
    ],
    ids=["flat", "engine", "flat texts", "engine's texts", "flat first"],
)
def test_every_setting_of_the_engine_is_an_argument(given: dict[str, Any]) -> None:
    arguments = RayArguments.model_validate({"model": "m/n", "timeout_s": "7", **given})
    assert arguments.engine == SETTINGS_OF_ENGINE
    assert (arguments.model, arguments.timeout_s) == ("m/n", 7)
    # the others are the server's, or each request's
    assert SETTINGS_OF_ENGINE.keys() == set(SETTINGS) - {"model", "normalize", "timeout_s"}
    assert split_settings(arguments.model, arguments.engine)[0].cutoff_layers == (8, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_length": "two"}, "max_length must be None or an int of at least 16, got 'two'"),
        ({"engine": {"max_length": 8}}, "max_length must be None or an int of at least 16, got 8"),
        ({"engine": {"dtype": "int4"}}, "dtype must be one of"),
        ({"max_lenght": "64"}, "max_lenght"),
        ({"engine": {"max_lenght": 64}}, r"engine must be a mapping of .*, got .*max_lenght"),
        ({"engine": {"normalize": False}}, r"engine must be a mapping of .*, got .*normalize"),
        ({"engine": {"model": "tiny"}}, r"engine must be a mapping of .*, got .*model"),
        ({"engine": "max_length=64"}, r"engine must be a mapping of .*, got 'max_length=64'"),
        ({"normalize": "false"}, "normalize"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RayArguments.model_validate(given)


def test_settings_that_do_not_fit_each_other_are_refused_before_a_replica_starts() -> None:
    with pytest.raises(ConfigurationError, match="query_max_length must be less than max_length"):
        app(
            RayArguments.model_validate(
                {"max_length": "64", "query_max_length": "64", "no_api_key": "true"}
            )
        )


def test_keys_come_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(**arguments: Any) -> tuple[str, ...]:
        built = app(RayArguments.model_validate(arguments))
        limits = built._bound_deployment.init_args[2]
        assert isinstance(limits, ServerSettings)
        return limits.api_keys

    assert keys(no_api_key=True) == ()
    with pytest.raises(ConfigurationError, match="set BGE_RERANK_API_KEY or api_key_file, or let"):
        keys()
    monkeypatch.setenv("BGE_RERANK_API_KEY", " key\n")
    assert keys() == ("key",)
    with pytest.raises(ConfigurationError, match="not both"):
        keys(no_api_key=True)
    (tmp_path / "keys").write_text("old\nnew\n")
    assert keys(api_key_file=str(tmp_path / "keys")) == ("old", "new")
    monkeypatch.setenv("BGE_RERANK_API_KEY", "")
    with pytest.raises(ConfigurationError, match="BGE_RERANK_API_KEY is empty"):
        keys()


def test_the_settings_reach_the_replicas_engine(
    deploy: Callable[..., str], engine: RerankEngine
) -> None:
    url = deploy(**LIMITED)
    with RemoteReranker(url, "nebul", normalize=False) as reranker:
        scores = reranker.score(QUERY, DOCUMENTS)
    expected = engine.score(QUERY, DOCUMENTS, max_length=32, max_document_tokens=6)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert scores != pytest.approx(engine.score(QUERY, DOCUMENTS), abs=1e-5)


def test_a_dataset_is_scored_by_one_engine_an_actor(
    url: str, xlmr: str, engine: RerankEngine
) -> None:
    import ray.data

    from bge_rerank_integrations.bulk import RerankBatch

    serve.delete("default")
    config = EngineConfig(xlmr, dtype="float32", device="cpu")
    rows: list[dict[str, Any]] = [
        {"id": n, "query": QUERY, "document": DOCUMENTS[n % 20]} for n in range(200)
    ]
    # a job of hours does not end at a document that is missing
    rows[7]["document"] = None
    scored = ray.data.from_items(rows).map_batches(
        RerankBatch,
        fn_constructor_args=(config,),
        fn_constructor_kwargs={"normalize": False, "on_error": "null"},
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
        batch_size=32,
    )
    expected = engine.score(QUERY, DOCUMENTS)
    taken = scored.take_all()
    assert sorted(row["id"] for row in taken) == list(range(200))
    assert [row["id"] for row in taken if math.isnan(row["score"])] == [7]
    for row in taken:
        if row["id"] == 7:
            continue
        assert row["score"] == pytest.approx(expected[row["id"] % 20], abs=1e-5)
