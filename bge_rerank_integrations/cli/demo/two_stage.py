"""What the demo asks of each framework, and what it gets back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, TypeVar

from bge_rerank_integrations.cli.passages import Passage
from bge_rerank_integrations.errors import MissingExtraError
from bge_rerank_integrations.first_stage import BM25Index, Hit
from bge_rerank_integrations.ranking import RankedDocument
from bge_rerank_integrations.settings import EngineConfig

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FirstStage:
    """Passages and the index over them.

    :param candidates: how many passages a search returns, at most.
    """

    passages: Sequence[Passage]
    index: BM25Index
    candidates: int

    def search(self, question: str) -> list[Hit]:
        """The best passages by BM25, best first."""
        return self.index.search(question, self.candidates)


@dataclass(frozen=True, slots=True)
class Run:
    """One question, through one framework.

    :param framework: the framework's name.
    :param component: the class that reranked.
    :param found: numbers of the passages that the first stage returned, best first.
    :param kept: numbers and scores of the passages that the reranker kept, best first.
    :param retrieve_s: seconds in the framework's retriever.
    :param rerank_s: seconds in the framework's reranking component.
    :param engine_config: settings of the engine behind the component.
    """

    framework: str
    component: str
    found: tuple[int, ...]
    kept: tuple[RankedDocument, ...]
    retrieve_s: float
    rerank_s: float
    engine_config: EngineConfig


class Framework(Protocol):
    """A module that asks one question through one framework."""

    def ask(self, question: str, first_stage: FirstStage, model: str, top_n: int) -> Run:
        """Retrieve with ``first_stage``, keep the ``top_n`` best by ``model``."""
        ...


def installed_frameworks() -> tuple[list[Framework], list[MissingExtraError]]:
    """The frameworks that can be imported, and what is missing for the others."""
    installed: list[Framework] = []
    missing: list[MissingExtraError] = []
    for name in ("ask_llama_index", "ask_langchain"):
        try:
            installed.append(import_module(f"bge_rerank_integrations.cli.demo.{name}"))
        except MissingExtraError as error:
            missing.append(error)
    return installed, missing


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a call, and the seconds that it took."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start
