"""Scorers and tokenizers without a model, to test what stands above them.

All that tests know of the engine's insides on a call's way is in this file: what crosses between
tokenizer, scheduler and scorer, and what may be patched.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.engine.loading.model import LoadedModel, load
from bge_rerank_integrations.engine.scorers import Logits, Scorer
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence
from bge_rerank_integrations.settings import CallOptions, split_settings

_ENGINE = "bge_rerank_integrations.engine"
# what tests patch: EngineConfig → LoadedModel, as an engine calls it
LOAD = f"{_ENGINE}.registry.load"
# the hub's download, as the loading of a checkpoint calls it
DOWNLOAD = "huggingface_hub.snapshot_download"
# where the engine reads its clock
CLOCKS = [f"{_ENGINE}.scheduling.{name}.time" for name in ("admission", "job", "queue")]
# pairs that the tokenizer takes at one time, and seconds that close() waits for a forward pass
TOKENIZE_PAIRS = f"{_ENGINE}.scheduling.scheduler._TOKENIZE_PAIRS"
CLOSE_TIMEOUT_S = f"{_ENGINE}.scheduling.scheduler._CLOSE_TIMEOUT_S"
# pairs of one part of a long call
CHUNK_PAIRS = f"{_ENGINE}.pair_stream._CHUNK_PAIRS"
# seconds that a fork waits for what computes
FORK_TIMEOUT_S = f"{_ENGINE}.threads._FORK_TIMEOUT_S"

Tokenize = Callable[[Sequence[tuple[str, str]]], list[list[TokenSequence]]]

# a fixture: fake_engine, closed after the test
MakeEngine = Callable[..., RerankEngine]


def digest(query: str, document: str) -> float:
    """A score that tells every (query, document) from every other, exact in float32."""
    return float(zlib.crc32(f"{query}\0{document}".encode()) % 2**24)


def tokenize(pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
    """One sequence a pair: its digest, then one token a character."""
    sequences = []
    for query, document in pairs:
        ids = np.array([int(digest(query, document)), *map(ord, document)], dtype=np.int32)
        sequences.append([TokenSequence(ids, 1, len(ids))])
    return sequences


def digests(batch: Sequence[TokenSequence]) -> Logits:
    """The digests that :func:`tokenize` put first, as logits `(n, 1)`."""
    return np.array([[pair.ids[0]] for pair in batch], dtype=np.float32)


def text_of(pair: TokenSequence) -> str:
    """The document that :func:`tokenize` read."""
    return "".join(map(chr, pair.ids[1:]))


class Deferred:
    """Logits that a device is still computing, as a scorer on CUDA answers."""

    def __init__(self, events: list[str], batch: Sequence[TokenSequence]) -> None:
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
        answer: Callable[[Sequence[TokenSequence]], npt.ArrayLike] = digests,
        *,
        padded: bool = False,
        gate: threading.Event | None = None,
    ) -> None:
        self.padded = padded
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.gate = gate
        self._answer = answer

    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        self.batches.append([len(pair) for pair in batch])
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        return self._answer(batch)


class HeldTokenizer:
    """Tokenizes, but stands still at a document ``"hold"`` until it is released.

    The calls that came before that document's are in line for scoring by then.
    """

    def __init__(self) -> None:
        self.is_held = threading.Event()
        self.release = threading.Event()

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[list[TokenSequence]]:
        if any(document == "hold" for _, document in pairs):
            self.is_held.set()
            assert self.release.wait(20)
        return tokenize(pairs)


class FakeTokenizer:
    """What an engine needs of a tokenizer, around a function."""

    cache = SimpleNamespace(hits=0, misses=0)

    def __init__(self, tokenize: Tokenize = tokenize) -> None:
        self._tokenize = tokenize

    def max_length(self, options: CallOptions) -> int:
        return options.max_length or 512

    def layout(self, options: CallOptions) -> CallOptions:
        return replace(options, max_length=self.max_length(options))

    def __call__(
        self, pairs: Sequence[tuple[str, str]], layout: CallOptions
    ) -> list[list[TokenSequence]]:
        return self._tokenize(pairs)


def fake_model(
    *scorers: FakeScorer, tokenize: Tokenize = tokenize, max_batch_tokens: int = 64
) -> LoadedModel:
    """What loading gives, with fakes in the places of tokenizer and scorers."""
    return LoadedModel(
        folder=Path(),
        tokenizer=FakeTokenizer(tokenize),  # type: ignore[arg-type]
        scorers=scorers or (FakeScorer(),),
        layers=(1,),
        is_layerwise=False,
        activation="Sigmoid",
        devices=tuple(torch.device("cpu") for _ in scorers or "1"),
        dtype=torch.float32,
        max_batch_tokens=max_batch_tokens,
    )


def fake_engine(
    *scorers: FakeScorer,
    tokenize: Tokenize = tokenize,
    max_batch_tokens: int = 64,
    **settings: Any,
) -> RerankEngine:
    """An engine over fake scorers, one a replica; its scores are the fakes' logits."""
    model = fake_model(*scorers, tokenize=tokenize, max_batch_tokens=max_batch_tokens)
    config, options = split_settings("fake", {"normalize": False, **settings})
    return RerankEngine.on(model, config, **asdict(options))


class RecordingScorer:
    """Scores as ``scorer`` does, and remembers the sequences that it was given."""

    def __init__(self, scorer: Scorer) -> None:
        self.padded = scorer.padded
        self.batches: list[list[TokenSequence]] = []
        self._scorer = scorer

    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        self.batches.append(list(batch))
        return self._scorer.score(batch)

    @property
    def sequences(self) -> list[TokenSequence]:
        """The sequences of all batches."""
        return [sequence for batch in self.batches for sequence in batch]


def recorded_engine(model: str, **settings: Any) -> tuple[RerankEngine, RecordingScorer]:
    """An engine on a real model, and what its scorer is given."""
    config, options = split_settings(model, settings)
    loaded = load(config)
    scorer = RecordingScorer(loaded.scorers[0])
    return RerankEngine.on(replace(loaded, scorers=(scorer,)), config, **asdict(options)), scorer
