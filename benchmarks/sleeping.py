"""A device that computes on its own, while the host only waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.engine.loading.model import LoadedModel
from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence
from bge_rerank_integrations.settings import CallOptions


class SleepingScorer:
    """Takes its time, and gives every pair the same logit.

    :param seconds: of a batch, by its number of pairs.
    """

    padded = False

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds

    def score(self, batch: Sequence[TokenSequence]) -> Logits:
        """Zeros, after a while."""
        time.sleep(self._seconds(len(batch)))
        return np.zeros((len(batch), 1), dtype=np.float32)


class FixedTokenizer:
    """Takes no time, and reads every pair as the same number of tokens."""

    cache = SimpleNamespace(hits=0, misses=0)

    def __init__(self, tokens: int) -> None:
        self._sequence = TokenSequence(np.zeros(tokens, dtype=np.int32), 0, tokens)

    def max_length(self, options: CallOptions) -> int:
        """What was asked for: no model sets a limit."""
        return options.max_length or 512

    def layout(self, options: CallOptions) -> CallOptions:
        """The options, with a length."""
        return replace(options, max_length=self.max_length(options))

    def __call__(
        self,
        pairs: Sequence[tuple[str, str]],
        layout: CallOptions,  # noqa: ARG002
    ) -> list[list[TokenSequence]]:
        """One sequence a pair."""
        return [[self._sequence] for _ in pairs]


def sleeping_engine(
    *scorers: SleepingScorer, tokens: int, max_batch_tokens: int, max_queued_pairs: int = 100_000
) -> RerankEngine:
    """An engine on devices that only take their time.

    :param tokens: of every pair.
    """
    model = LoadedModel(
        folder=Path(),
        tokenizer=FixedTokenizer(tokens),  # type: ignore[arg-type]
        scorers=scorers,
        layers=(1,),
        is_layerwise=False,
        activation="Sigmoid",
        devices=tuple(torch.device("cpu") for _ in scorers),
        dtype=torch.float32,
        max_batch_tokens=max_batch_tokens,
    )
    return RerankEngine.on(model, EngineConfig("sleeping", max_queued_pairs=max_queued_pairs))
