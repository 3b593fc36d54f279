"""Scorers and tokenizers without a model, to test what stands above them."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bge_rerank_integrations.engine.loading.model import LoadedModel
from bge_rerank_integrations.engine.scheduling.scheduler import Scheduler, Tokenize
from bge_rerank_integrations.engine.scorers import Logits
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair


def digest(query: str, document: str) -> float:
    """A score that tells every (query, document) from every other, exact in float32."""
    return float(zlib.crc32(f"{query}\0{document}".encode()) % 2**24)


def tokenize(pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
    """One sequence a pair: its digest, then one token a character."""
    sequences = []
    for query, document in pairs:
        ids = np.array([int(digest(query, document)), *map(ord, document)], dtype=np.int32)
        sequences.append([TokenizedPair(ids, 1, len(ids))])
    return sequences


def digests(batch: Sequence[TokenizedPair]) -> Logits:
    """The digests that :func:`tokenize` put first, as logits `(n, 1)`."""
    return np.array([[pair.ids[0]] for pair in batch], dtype=np.float32)


def text_of(pair: TokenizedPair) -> str:
    """The document that :func:`tokenize` read."""
    return "".join(map(chr, pair.ids[1:]))


class Deferred:
    """Logits that a device is still computing, as a scorer on CUDA answers."""

    def __init__(self, events: list[str], batch: Sequence[TokenizedPair]) -> None:
        self._events, self._batch = events, batch
        self._note("start")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Logits:
        self._note("wait")
        if any(text_of(pair) == "bad" for pair in self._batch):
            raise RuntimeError("lost on the way")
        return digests(self._batch)

    def _note(self, event: str) -> None:
        self._events.append(f"{event} {' '.join(map(text_of, self._batch))}")


class FakeScorer:
    """Scores through ``answer``, and remembers the sizes of its batches.

    :param gate: waits for this before each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[TokenizedPair]], npt.ArrayLike] = digests,
        *,
        padded: bool = False,
        gate: threading.Event | None = None,
    ) -> None:
        self.padded = padded
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self._answer = answer
        self._gate = gate

    def score(self, batch: Sequence[TokenizedPair]) -> npt.ArrayLike:
        self.batches.append([len(pair) for pair in batch])
        self.entered.set()
        if self._gate is not None:
            assert self._gate.wait(20)
        return self._answer(batch)


def scheduler(*scorers: FakeScorer, max_batch_tokens: int = 64, **settings: int) -> Scheduler:
    """A scheduler over fake scorers."""
    settings = {"max_queued_pairs": 10_000, **settings}
    return Scheduler(tokenize, scorers, max_batch_tokens=max_batch_tokens, **settings)


class FakeTokenizer:
    """What an engine needs of a tokenizer, round a function."""

    texts = SimpleNamespace(hits=0, misses=0)

    def __init__(self, tokenize: Tokenize = tokenize) -> None:
        self._tokenize = tokenize

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[list[TokenizedPair]]:
        return self._tokenize(pairs)


def fake_model(
    *scorers: FakeScorer, tokenize: Tokenize = tokenize, max_batch_tokens: int = 64
) -> LoadedModel:
    """What loading gives, with fakes in the places of tokenizer and scorers."""
    return LoadedModel(
        tokenizer=FakeTokenizer(tokenize),  # type: ignore[arg-type]
        scorers=scorers or (FakeScorer(),),
        layers=(1,),
        is_layerwise=False,
        devices=(torch.device("cpu"),),
        dtype=torch.float32,
        max_length=512,
        max_batch_tokens=max_batch_tokens,
    )
