"""The engine's figures on one device: speed, host time, callers, memory, precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedConfig

from benchmarks.agreement import kendall_tau
from benchmarks.cuda import synchronize
from benchmarks.machine import memory_mib
from benchmarks.shapes import forward_flops
from benchmarks.texts import CutTexts, Pair
from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.engine.loading.model import load
from bge_rerank_integrations.engine.scheduling.worker import plan_batches
from bge_rerank_integrations.engine.scorers.attention import upload
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence
from bge_rerank_integrations.setting_types import Dtype

Figures = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    :param pairs: of a bulk call.
    :param tokens: of a bulk pair, on average, with all that stands around its texts.
    :param lists: documents of a short call.
    :param list_tokens: of its pairs.
    :param repeats: of a bulk call; a short one comes ten times as often.
    :param callers: at one time, with 20 documents each.
    :param judged: queries whose rankings are compared.
    :param judged_documents: of each of them.
    """

    pairs: int = 4_000
    tokens: int = 150
    lists: tuple[int, ...] = (20, 50, 100)
    list_tokens: int = 128
    repeats: int = 5
    callers: tuple[int, ...] = (1, 8, 32)
    judged: int = 20
    judged_documents: int = 50


TINY = Sizes(
    pairs=6,
    tokens=60,
    lists=(2, 4),
    list_tokens=60,
    repeats=1,
    callers=(2,),
    judged=1,
    judged_documents=12,
)


class Run:
    """A loaded model, its engine, and texts for it.

    :param folder: the checkpoint's.
    :param shape: its configuration.
    :param device: where it runs.
    :param dtype: its precision.
    :param peak_tflops: of the device; None where it is not known.
    :param max_batch_tokens: tokens in a pass; None for the device's default.
    """

    def __init__(
        self,
        folder: Path,
        shape: PreTrainedConfig,
        device: torch.device,
        dtype: Dtype,
        sizes: Sizes,
        peak_tflops: float | None,
        max_batch_tokens: int | None = None,
    ) -> None:
        self.folder, self.shape, self.device, self.sizes = folder, shape, device, sizes
        self.peak_tflops = peak_tflops
        config = EngineConfig(
            str(folder), device=str(device), dtype=dtype, max_batch_tokens=max_batch_tokens
        )
        start = time.perf_counter()
        self.model = load(config)
        self.load_s = time.perf_counter() - start
        self.weights_mib = _allocated_mib(device)
        self.engine = RerankEngine.on(self.model, config, normalize=False)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        self.texts = CutTexts(tokenizer)
        (around,) = self.sequences([(self.texts.query(), "")])
        self._around = len(around)

    def sequences(self, pairs: Sequence[Pair]) -> list[TokenSequence]:
        """Token ids of pairs."""
        layout = self.model.tokenizer.layout(self.engine.options)
        return [sequence for of_pair in self.model.tokenizer(pairs, layout) for sequence in of_pair]

    def bulk(self) -> list[Pair]:
        """New pairs for a bulk call."""
        return self.texts.pairs(self.sizes.pairs, self._document_tokens(self.sizes.tokens))

    def documents(self, n: int) -> list[str]:
        """New documents for a short call."""
        return self.texts.documents(n, self._document_tokens(self.sizes.list_tokens))

    def _document_tokens(self, tokens: int) -> int:
        return max(8, tokens - self._around)


def throughput(run: Run) -> Figures:
    """Bulk calls of new texts, and of texts whose token ids are known; share of the roofline."""
    run.engine.score_pairs(run.bulk())
    new_s, known_s = [], []
    for _ in range(run.sizes.repeats):
        pairs = run.bulk()
        new_s.append(_seconds(run.engine.score_pairs, pairs))
        known_s.append(_seconds(run.engine.score_pairs, pairs))
    lengths = [len(sequence) for sequence in run.sequences(pairs)]
    tflop = forward_flops(run.shape, lengths) / 1e12
    peak = run.peak_tflops
    return {
        "pairs": len(pairs),
        "tokens_per_pair": round(sum(lengths) / len(lengths), 1),
        "max_batch_tokens": run.model.max_batch_tokens,
        "pairs_per_s": round(len(pairs) / median(new_s), 1),
        "pairs_per_s_with_known_texts": round(len(pairs) / median(known_s), 1),
        "tflops": round(tflop / median(known_s), 2),
        "share_of_peak": None if peak is None else round(tflop / median(known_s) / peak, 3),
        "pairs_per_s_at_peak": None if peak is None else round(len(pairs) * peak / tflop),
        "new_s": [round(s, 4) for s in new_s],
        "known_s": [round(s, 4) for s in known_s],
    }


def host(run: Run) -> Figures:
    """Seconds of a bulk call's tokenization, its passes on the device and what the host does there.

    Where ``launch_s`` is near ``passes_s``, the device waits for the host.
    """
    pairs = run.bulk()
    start = time.perf_counter()
    sequences = run.sequences(pairs)
    tokenize_s = time.perf_counter() - start
    (scorer,) = run.model.scorers
    lengths = [len(sequence) for sequence in sequences]
    plan = plan_batches(lengths, run.model.max_batch_tokens, padded=scorer.padded)
    batches = [[sequences[index] for index in indices] for indices in plan]
    passes_s, launch_s = [], []
    for _ in range(run.sizes.repeats):
        synchronize(run.device)
        start = time.perf_counter()
        pending = [scorer.score(batch) for batch in batches]
        launch_s.append(time.perf_counter() - start)
        for logits in pending:
            np.asarray(logits)
        passes_s.append(time.perf_counter() - start)
    rows = torch.zeros((3, run.model.max_batch_tokens), dtype=torch.int32)
    synchronize(run.device)
    uploads = [_seconds(upload, rows, run.device) for _ in range(20)]
    return {
        "tokenize_s": round(tokenize_s, 4),
        "tokens_per_s": round(sum(lengths) / tokenize_s),
        "batches": len(batches),
        "launch_s": round(median(launch_s), 4),
        "passes_s": round(median(passes_s), 4),
        "launch_ms_per_batch": round(1e3 * median(launch_s) / len(batches), 3),
        "upload_us": round(1e6 * median(uploads), 1),
        "is_tokenizer_bound": tokenize_s > median(passes_s),
    }


def latency(run: Run) -> Figures:
    """Milliseconds of a call of few documents, end to end, with new and with known documents."""
    figures: Figures = {}
    for n in run.sizes.lists:
        query, documents = run.texts.query(), run.documents(n)
        run.engine.rerank(query, documents)
        repeats = 10 * run.sizes.repeats
        known = [_seconds(run.engine.rerank, query, documents) for _ in range(repeats)]
        new = [_seconds(run.engine.rerank, run.texts.query(), run.documents(n)) for _ in known]
        tokens = sum(map(len, run.sequences([(query, document) for document in documents])))
        figures[f"{n} documents"] = {
            "tokens_per_pair": round(tokens / n, 1),
            "known": _spread_ms(known),
            "new": _spread_ms(new),
        }
    return figures


def callers(run: Run) -> Figures:
    """Calls of 20 new documents by several callers at one time."""
    figures: Figures = {}
    for n in run.sizes.callers:
        calls = [
            [(run.texts.query(), run.documents(20)) for _ in range(2 * run.sizes.repeats)]
            for _ in range(n)
        ]

        def work(own: list[tuple[str, list[str]]]) -> list[float]:
            return [_seconds(run.engine.score, *one) for one in own]

        with ThreadPoolExecutor(n) as pool:
            start = time.perf_counter()
            spent = [s for each in pool.map(work, calls) for s in each]
            seconds = time.perf_counter() - start
        figures[f"{n} callers"] = {
            "pairs_per_s": round(20 * len(spent) / seconds, 1),
            **_spread_ms(spent),
        }
    return figures


def memory(run: Run) -> Figures:
    """Of the weights and at most, so far; on a CPU the process's."""
    figures: Figures = {"load_s": round(run.load_s, 2), "weights_mib": run.weights_mib}
    if run.device.type == "cuda":
        figures["peak_mib"] = torch.cuda.max_memory_allocated(run.device) >> 20
        figures["reserved_mib"] = torch.cuda.max_memory_reserved(run.device) >> 20
    else:
        figures["peak_mib"] = round(memory_mib("VmHWM"))
    return figures


def precision(run: Run) -> Figures:
    """Half precision against float32, float32 against other batches and against the CPU."""
    size = run.sizes.list_tokens - run._around
    lists = [run.texts.pairs(run.sizes.judged_documents, size) for _ in range(run.sizes.judged)]
    with _engine(run, "float32") as engine:
        exact = [np.array(engine.score_pairs(pairs)) for pairs in lists]
    figures: Figures = {"float32_spread": float(f"{np.std(np.concatenate(exact)):.3g}")}
    with _engine(run, "float32", max_batch_tokens=1) as engine:
        alone = np.array(engine.score_pairs(lists[0]))
    figures["float32_alone_differs_by"] = _difference([alone], exact[:1])
    with _engine(run, "float32", device="cpu") as engine:
        on_cpu = np.array(engine.score_pairs(lists[0][:8]))
    figures["float32_on_a_cpu_differs_by"] = _difference([on_cpu], [exact[0][:8]])
    for dtype in ("bfloat16", "float16"):
        with _engine(run, dtype) as engine:
            half = [np.array(engine.score_pairs(pairs)) for pairs in lists]
        tau = float(np.mean([kendall_tau(a, b) for a, b in zip(half, exact, strict=True)]))
        changed = [int(a.argmax() != b.argmax()) for a, b in zip(half, exact, strict=True)]
        figures[dtype] = {
            "differs_by": _difference(half, exact),
            "kendall_tau": round(tau, 4),
            "pairs_that_flip": round((1 - tau) / 2, 5),
            "other_first": sum(changed) / len(changed),
        }
    return figures


#: in the order in which they are measured, while there is time
MEASUREMENTS: dict[str, Callable[[Run], Figures]] = {
    "throughput": throughput,
    "latency": latency,
    "host": host,
    "callers": callers,
    "memory": memory,
    "precision": precision,
}


@contextmanager
def _engine(run: Run, dtype: str, **settings: Any) -> Iterator[RerankEngine]:
    given = {"device": str(run.device), "dtype": dtype, "normalize": False, **settings}
    with RerankEngine(str(run.folder), **given) as engine:
        yield engine


def _difference(scores: Sequence[Any], exact: Sequence[Any]) -> float:
    largest = max(np.abs(a - b).max() for a, b in zip(scores, exact, strict=True))
    return float(f"{largest:.2e}")


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def _spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50_ms": round(1e3 * median(seconds), 3),
        "p95_ms": round(1e3 * quantiles(seconds, n=20)[-1], 3),
    }


def _allocated_mib(device: torch.device) -> int | None:
    return torch.cuda.memory_allocated(device) >> 20 if device.type == "cuda" else None
