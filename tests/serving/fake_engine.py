"""What a server sees of an engine, without a model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from typing_extensions import Unpack

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.engine.scheduling.stats import Counters, EngineStats
from bge_rerank_integrations.ranking import Scores, TokenUsage
from bge_rerank_integrations.setting_types import CallOverrides
from bge_rerank_integrations.settings import CallOptions


def logit_of(query: str, document: str) -> float:
    """One point for each word of the document that the query has, less one and a half."""
    return len(set(query.lower().split()) & set(document.lower().split())) - 1.5


class FakeEngine:
    """Answers :func:`logit_of`.

    :param error: raised by every call, instead of an answer.
    :param delay_s: how long an answer takes.
    :param usage: what the answers say that was read; by default ten tokens a pair.
    """

    max_length = 512
    options = CallOptions()

    def __init__(
        self,
        error: Exception | None = None,
        delay_s: float = 0.0,
        usage: TokenUsage | None = None,
        model: str = "fake",
    ) -> None:
        self.model = model
        self.error = error
        self.delay_s = delay_s
        self.usage = usage
        self.is_alive = True
        self.calls: list[tuple[tuple[tuple[str, str], ...], CallOverrides]] = []
        self.waiting = 0
        self.cancelled = 0

    def stats(self) -> EngineStats:
        done = Counters().snapshot()
        named = {"state": "ready", "model": self.model, "device": "cpu", "dtype": "float32"}
        zeros: dict[str, Any] = {field.name: 0 for field in fields(EngineStats)}
        return EngineStats(**{**zeros, **done, **named})

    async def ascore(
        self, query: str, documents: Sequence[str], **options: Unpack[CallOverrides]
    ) -> Scores:
        return await self.ascore_pairs([(query, document) for document in documents], **options)

    async def ascore_pairs(
        self, pairs: Sequence[tuple[str, str]], **options: Unpack[CallOverrides]
    ) -> Scores:
        self.calls.append((tuple(pairs), options))
        self.waiting += 1
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        logits = [logit_of(query, document) for query, document in pairs]
        return Scores.from_logits(
            logits,
            normalize=options["normalize"],
            usage=self.usage or TokenUsage(10 * len(pairs), [10] * len(pairs)),
            model=self.model,
        )


Engine: TypeAlias = RerankEngine | FakeEngine


def loads(engines: Engine | Mapping[str, Engine]) -> Any:
    """Functions that return them, as a server takes engines; names of one engine share one."""
    if not isinstance(engines, Mapping):
        return lambda: engines
    functions: dict[int, Callable[[], Engine]] = {}
    for engine in engines.values():
        functions.setdefault(id(engine), lambda engine=engine: engine)  # type: ignore[misc]
    return {name: functions[id(engine)] for name, engine in engines.items()}
