"""The demo's first stage, and the protocol of its frameworks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, TypeVar

from bge_rerank_integrations.cli.passages import ReferencePassage
from bge_rerank_integrations.errors import MissingExtraError
from bge_rerank_integrations.first_stage import BM25Index, Hit
from bge_rerank_integrations.ranking import RankedDocument
from bge_rerank_integrations.settings import EngineConfig

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FirstStage:
    """Passages and the index over them.

    :param candidates: maximum number of passages that a search returns.
    """

    passages: Sequence[ReferencePassage]
    index: BM25Index
    candidates: int

    def search(self, question: str) -> list[Hit]:
        """The best passages by BM25, best first."""
        return self.index.search(question, self.candidates)


@dataclass(frozen=True, slots=True)
class DemoRun:
    """Results of one question in one framework.

    :param framework: the framework's name.
    :param component: the class that reranked.
    :param found: indices of the passages that the first stage returned, best first.
    :param kept: indices and scores of the passages that the reranker kept, best first.
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

    def ask(self, question: str, first_stage: FirstStage, model: str, top_n: int) -> DemoRun:
        """Retrieve with ``first_stage``, keep the ``top_n`` best by ``model``."""
        ...


def installed_frameworks() -> tuple[list[Framework], list[MissingExtraError]]:
    """The installed frameworks, and an error for each missing one."""
    installed: list[Framework] = []
    missing: list[MissingExtraError] = []
    for name in ("ask_llama_index", "ask_langchain"):
        try:
            installed.append(import_module(f"bge_rerank_integrations.cli.demo.{name}"))
        except MissingExtraError as error:
            missing.append(error)
    return installed, missing


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Call a function; return its result and the seconds it took."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start
