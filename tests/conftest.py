"""Checkpoints for all tests; no test reaches for the network."""

from __future__ import annotations

import gc
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from paths import GOLDEN

# before torch is imported, here and in the processes that tests start: the models are tiny, and
# threads that wait for each other take most of the time, above all beside other processes
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from background import programs_of
from checkpoints import SMALL, SMALL_MODERNBERT, save_checkpoint, save_random
from fakes import MakeEngine, fake_engine
from pytest_socket import disable_socket, enable_socket, socket_allow_hosts
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
)

from bge_rerank_integrations import RerankEngine


def _pairs_are_unix_sockets() -> bool:
    one, other = socket.socketpair()
    with one, other:
        return one.family == getattr(socket, "AF_UNIX", None)


# event loops wake themselves through a pair of sockets; on Windows it is a connection to itself
PAIRS_ARE_UNIX_SOCKETS = _pairs_are_unix_sockets()


def pytest_sessionstart() -> None:
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        for program in programs_of(session.items):
            program.start()
    # imports and collected tests stay to the end: to look through them again and again takes a
    # tenth of the time of all tests
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    for program in programs_of(session.items):
        program.end()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("enable_socket"):
        enable_socket()
    elif PAIRS_ARE_UNIX_SOCKETS:
        disable_socket(allow_unix_socket=True)
    else:
        socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True, scope="module")
def garbage() -> Iterator[None]:
    """What a module leaves is collected at its end: its own marks say which warnings are errors."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """Scores of FlagEmbedding 1.4.2 for the tiny checkpoints, and the pairs they belong to."""
    scores: dict[str, Any] = json.loads((GOLDEN / "reference_scores.json").read_text("utf-8"))
    return scores


@pytest.fixture(scope="session")
def xlmr() -> str:
    """A tiny random checkpoint in the exact format of BGE's encoders."""
    return str(GOLDEN / "xlmr")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random BERT reranker: other special tokens, token types and positions than XLM-R's."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    config = BertConfig(**SMALL, num_labels=1)
    return save_checkpoint(BertForSequenceClassification(config), folder)


@pytest.fixture(scope="session")
def modernbert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random ModernBERT reranker whose windows are smaller than most texts."""
    return save_random(ModernBertConfig(**SMALL_MODERNBERT), tmp_path_factory.mktemp("modernbert"))


@pytest.fixture(scope="session")
def distilbert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random reranker of an architecture that the engine does not pack."""
    folder = tmp_path_factory.mktemp("distilbert")
    torch.manual_seed(2)
    config = DistilBertConfig(
        vocab_size=300, dim=32, n_layers=2, n_heads=4, hidden_dim=64, num_labels=1
    )
    return save_checkpoint(DistilBertForSequenceClassification(config), folder)


@pytest.fixture(scope="session")
def engine(xlmr: str) -> Iterator[RerankEngine]:
    """An engine on the tiny encoder, in float32, with logits for scores."""
    with RerankEngine(xlmr, dtype="float32", normalize=False, device="cpu") as engine:
        yield engine


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes engines over fakes, see ``fake_engine``; closes them after the test."""
    made: list[RerankEngine] = []

    def make(*scorers: Any, **settings: Any) -> RerankEngine:
        made.append(fake_engine(*scorers, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
