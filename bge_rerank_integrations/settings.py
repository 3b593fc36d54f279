"""What an engine is made from: frozen, checked once, hashable, picklable."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bge_rerank_integrations.errors import ConfigurationError

DEFAULT_MODEL = "BAAI/bge-reranker-v2-m3"
BUILT_IN_MODEL = "tiny"

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
LongDocuments = Literal["truncate", "window"]

_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine; equal settings mean one engine per process.

    :param model: hub id, folder of a checkpoint, or ``"tiny"`` for the built-in English model.
    :param revision: branch, tag or commit of a hub model.
    :param device: ``"auto"``, one device (``"cpu"``, ``"cuda:1"``, ``"mps"``), or several: one
        replica of the model each, behind one queue.
    :param dtype: ``"auto"`` takes bfloat16 where the hardware computes it natively, float16 on
        older CUDA and on MPS, and float32 elsewhere; ``"float32"`` equals the reference to 1e-5.
    :param max_length: tokens of query, passage and special tokens together, at most; the model's
        own limit is the ceiling.
    :param query_max_length: tokens of the query, at most; None means three quarters of
        ``max_length``, as in FlagEmbedding.
    :param max_batch_tokens: tokens in one forward pass; None chooses for the device.
    :param normalize: report sigmoid(logit), between 0 and 1, instead of the logit.
    :param long_documents: ``"truncate"`` reads the head of a document that is too long, as the
        reference does; ``"window"`` reads all of it in overlapping windows and takes the best.
    :param prompt: instruction to a decoder; None means the one it was trained with.
    :param cutoff_layers: score after this number of layers (or after several: `rerank` uses the
        deepest); for layerwise and lightweight models. None means the last.
    :param compress_ratio: 1, 2, 4 or 8 passage tokens become one; for lightweight models.
    :param compress_layers: before which layers that happens; for lightweight models.
    :param cache_folder: where hub downloads are kept; None means the hub's own default.
    :param local_files_only: never reach for the network.
    :param max_cached_tokens: token ids to remember for texts that come again; 12 bytes a token with
        its text; 0 remembers nothing.
    :param max_queued_pairs: (query, document) pairs that may wait at one time.
    :param queue_timeout_s: how long a call waits for a place in a full queue before
        ``OverloadedError``; 0 raises at once.
    :raises ConfigurationError: naming the setting, what was expected and what came.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    device: str | tuple[str, ...] = "auto"
    dtype: Dtype = "auto"
    max_length: int = 512
    query_max_length: int | None = None
    max_batch_tokens: int | None = None
    normalize: bool = True
    long_documents: LongDocuments = "truncate"
    prompt: str | None = None
    cutoff_layers: tuple[int, ...] | None = None
    compress_ratio: int | None = None
    compress_layers: tuple[int, ...] | None = None
    cache_folder: str | None = None
    local_files_only: bool = False
    max_cached_tokens: int = 5_000_000
    max_queued_pairs: int = 100_000
    queue_timeout_s: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.device, Iterable) and not isinstance(self.device, str):
            # a tuple, so that a config given a list still hashes
            object.__setattr__(self, "device", tuple(self.device))
        for name in ("cutoff_layers", "compress_layers"):
            object.__setattr__(self, name, layer_numbers(name, getattr(self, name)))
        self._check_texts()
        self._check_device()
        self._check_choice("dtype", get_args(Dtype))
        self._check_choice("long_documents", get_args(LongDocuments))
        self._check_lengths()
        _require(self.compress_ratio in (None, 1, 2, 4, 8), "compress_ratio",
                 "None, 1, 2, 4 or 8", self.compress_ratio)  # fmt: skip
        for name in ("normalize", "local_files_only"):
            _require(isinstance(getattr(self, name), bool), name, "a bool", getattr(self, name))
        _require(_is_int(self.max_cached_tokens, 0), "max_cached_tokens", "an int of at least 0",
                 self.max_cached_tokens)  # fmt: skip
        _require(_is_int(self.max_queued_pairs, 1), "max_queued_pairs", "an int of at least 1",
                 self.max_queued_pairs)  # fmt: skip
        _require(_is_seconds(self.queue_timeout_s), "queue_timeout_s",
                 "a finite number of seconds, 0 or more", self.queue_timeout_s)  # fmt: skip

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, always as a tuple."""
        return (self.device,) if isinstance(self.device, str) else self.device

    def _check_texts(self) -> None:
        _require(isinstance(self.model, str) and bool(self.model.strip()), "model",
                 "a hub id, a folder or 'tiny'", self.model)  # fmt: skip
        for name in ("revision", "prompt", "cache_folder"):
            value = getattr(self, name)
            _require(value is None or (isinstance(value, str) and bool(value)), name,
                     "None or a non-empty string", value)  # fmt: skip

    def _check_device(self) -> None:
        expected = (
            "'auto', 'cpu', 'mps', 'xpu', 'cuda', 'cuda:N', or a list of devices other than 'auto'"
        )
        names = self.devices if isinstance(self.device, (str, tuple)) else ()
        known = all(isinstance(name, str) and _DEVICE.fullmatch(name) for name in names)
        _require(bool(names) and known and (len(names) == 1 or "auto" not in names), "device",
                 expected, self.device)  # fmt: skip

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        expected = "one of " + ", ".join(repr(choice) for choice in choices)
        _require(value in choices, name, expected, value)

    def _check_lengths(self) -> None:
        _require(_is_int(self.max_length, 16), "max_length", "an int of at least 16",
                 self.max_length)  # fmt: skip
        for name in ("query_max_length", "max_batch_tokens"):
            value = getattr(self, name)
            _require(value is None or _is_int(value, 1), name, "None or an int of at least 1",
                     value)  # fmt: skip
        shorter = self.query_max_length is None or self.query_max_length < self.max_length
        _require(shorter, "query_max_length", f"less than max_length ({self.max_length})",
                 self.query_max_length)  # fmt: skip


def _require(holds: bool, name: str, expected: str, value: Any) -> None:
    if not holds:
        raise ConfigurationError(f"{name} must be {expected}, got {value!r}")


def layer_numbers(name: str, value: object) -> tuple[int, ...] | None:
    """A number of layers, or several, as different numbers in ascending order.

    :raises ConfigurationError: naming the setting, if they are not ints of at least 1.
    """
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, Iterable) else (value,)
    _require(bool(numbers) and all(_is_int(number, 1) for number in numbers), name,
             "None, an int of at least 1, or several", value)  # fmt: skip
    return tuple(sorted(set(numbers)))


def _is_int(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_seconds(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value >= 0
