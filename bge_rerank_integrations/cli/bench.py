"""``bge-rerank bench``: the speed of a reranker on this machine with several settings."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, cycle, islice
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ..settings import BUILT_IN_MODEL, CallOptions, EngineConfig, split_settings
from .options import Model, with_settings
from .passages import python_reference

_QUERY = "Can a list be used as a dictionary key?"
# of technical English, in the vocabularies of these models
_TOKENS_PER_WORD = 5 / 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Measurements of one configuration.

    :param documents: documents per call.
    :param seconds: seconds of each call.
    :param tokens: tokens of each call.
    """

    config: EngineConfig
    max_batch_tokens: int
    documents: int
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def pairs_per_s(self) -> float:
        """Pairs per second of the median call."""
        return self.documents / float(np.median(self.seconds))

    def row(self) -> tuple[str, ...]:
        """The measurements as table cells."""
        p50, p95 = (float(np.percentile(self.seconds, p)) * 1000 for p in (50, 95))
        return (
            self.config.dtype,
            f"{self.max_batch_tokens:,}",
            f"{self.pairs_per_s:,.1f}",
            f"{sum(self.tokens) / sum(self.seconds):,.0f}",
            f"{p50:,.0f} ms",
            f"{p95:,.0f} ms",
        )


@with_settings(but=("dtype", "max_batch_tokens"))
def bench(
    model: Model = BUILT_IN_MODEL,
    documents: Annotated[int, typer.Option(min=1, help="Documents per call.")] = 50,
    tokens: Annotated[int, typer.Option(min=8, help="Tokens per document, approximately.")] = 150,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per setting.")] = 5,
    **settings: Any,
) -> None:
    """Time reranking calls with several settings, on Python's language reference.

    Every document is new: no call profits from the token cache.
    """
    texts = _texts(round(tokens / _TOKENS_PER_WORD))
    base, options = split_settings(model, settings)
    timings: list[Timing] = []
    console = Console()
    with console.status("measuring"):
        for dtype in ("auto", "float32"):
            for batches in (1, 4):
                config = replace(base, dtype=dtype)
                timings.append(_time(config, options, batches, texts, documents, seconds))
    table = Table("dtype", "max_batch_tokens", "pairs/s", "tokens/s", "p50", "p95", box=None)
    for timing in timings:
        table.add_row(*timing.row())
    console.print(table)
    best = max(timings, key=lambda timing: timing.pairs_per_s)
    read = round(sum(best.tokens) / len(best.tokens) / documents)
    console.print(f"{documents} documents a call, {read} tokens a pair; {_peak_memory()}")
    console.print(
        f'fastest: model="{model}", dtype="{best.config.dtype}", '
        f"max_batch_tokens={best.max_batch_tokens}",
        soft_wrap=True,
    )


def _time(
    config: EngineConfig,
    options: CallOptions,
    batches: int,
    texts: Iterator[str],
    documents: int,
    seconds: float,
) -> Timing:
    """Time calls for ``seconds``, with batches of ``batches`` times the device's default size."""
    # here: torch takes seconds to import, and --help needs none
    from .. import RerankEngine
    from ..engine.loading.devices import default_batch_tokens, resolve_device, resolve_dtype

    device = resolve_device(config.devices[0])
    size = default_batch_tokens(device, resolve_dtype(config.dtype, device)) * batches
    taken: list[float] = []
    read: list[int] = []
    with RerankEngine(replace(config, max_batch_tokens=size), **asdict(options)) as engine:
        engine.rerank(_QUERY, list(islice(texts, documents)))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(taken) < 3:
            asked = list(islice(texts, documents))
            start = time.perf_counter()
            read.append(engine.rerank(_QUERY, asked).total_tokens)
            taken.append(time.perf_counter() - start)
    return Timing(config, size, documents, tuple(taken), tuple(read))


def _texts(words: int) -> Iterator[str]:
    """Generate documents of ``words`` words without end; each one is different."""
    stream = chain.from_iterable(passage.text.split() for passage in cycle(python_reference()))
    for number, first in enumerate(stream):
        yield " ".join([str(number), first, *islice(stream, words - 2)])


def _peak_memory() -> str:
    """Peak memory of this process, if the system reports it."""
    try:
        import resource
    except ImportError:  # Windows
        return "peak memory unknown on this system"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / (1_000_000 if sys.platform == "darwin" else 1_000)
    return f"peak memory {megabytes:,.0f} MB"
