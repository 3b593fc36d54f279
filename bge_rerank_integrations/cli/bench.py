"""``bge-rerank bench``: how fast a reranker is on this machine, and with which settings."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from bge_rerank_integrations.cli.options import Device, Model
from bge_rerank_integrations.cli.passages import python_reference
from bge_rerank_integrations.settings import BUILT_IN_MODEL, EngineConfig

_QUERY = "Can a list be used as a dictionary key?"
# of technical English, in the vocabularies of these models
_TOKENS_PER_WORD = 5 / 3


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured with one setting.

    :param seconds: of each call.
    :param tokens: tokens of each call.
    """

    config: EngineConfig
    max_batch_tokens: int
    documents: int
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def pairs_per_s(self) -> float:
        """Documents a second in the median call."""
        return self.documents / float(np.median(self.seconds))

    def row(self) -> tuple[str, ...]:
        """The figures as texts."""
        p50, p95 = (float(np.percentile(self.seconds, p)) * 1000 for p in (50, 95))
        return (
            self.config.dtype,
            f"{self.max_batch_tokens:,}",
            f"{self.pairs_per_s:,.1f}",
            f"{sum(self.tokens) / sum(self.seconds):,.0f}",
            f"{p50:,.0f} ms",
            f"{p95:,.0f} ms",
        )


def bench(
    model: Model = BUILT_IN_MODEL,
    documents: Annotated[int, typer.Option(min=1, help="Documents in a call.")] = 50,
    tokens: Annotated[int, typer.Option(min=8, help="Tokens of a document, about.")] = 150,
    device: Device = "auto",
    seconds: Annotated[float, typer.Option(min=1, help="Time for each setting.")] = 5,
) -> None:
    """Time reranking calls with several settings; the text is Python's own reference.

    No document comes twice, so that no remembered token ids help.
    """
    texts = _texts(round(tokens / _TOKENS_PER_WORD))
    base = EngineConfig(model, device=device)
    timings: list[Timing] = []
    console = Console()
    with console.status("measuring"):
        for dtype in ("auto", "float32"):
            for batches in (1, 4):
                config = replace(base, dtype=dtype)
                timings.append(_time(config, batches, texts, documents, seconds))
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
    config: EngineConfig, batches: int, texts: Iterator[str], documents: int, seconds: float
) -> Timing:
    """Time calls with ``batches`` times the device's usual batch, for some seconds."""
    # here: torch takes seconds to import, and --help needs none
    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.engine.loading.devices import default_batch_tokens, resolve_device

    size = default_batch_tokens(resolve_device(config.devices[0])) * batches
    taken: list[float] = []
    read: list[int] = []
    with RerankEngine(replace(config, max_batch_tokens=size)) as engine:
        engine.rerank(_QUERY, list(islice(texts, documents)))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(taken) < 3:
            asked = list(islice(texts, documents))
            start = time.perf_counter()
            read.append(engine.rerank(_QUERY, asked).total_tokens)
            taken.append(time.perf_counter() - start)
    return Timing(config, size, documents, tuple(taken), tuple(read))


def _texts(words: int) -> Iterator[str]:
    """Documents of so many words, for ever, none of them twice."""
    stream = chain.from_iterable(passage.text.split() for passage in cycle(python_reference()))
    for number, first in enumerate(stream):
        yield " ".join([str(number), first, *islice(stream, words - 2)])


def _peak_memory() -> str:
    """Memory of this process at its largest, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return "peak memory not known on this system"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / (1_000_000 if sys.platform == "darwin" else 1_000)
    return f"peak memory {megabytes:,.0f} MB"
