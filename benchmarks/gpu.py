"""The engine on a CUDA device, shape by shape, beside its peers; figures in one JSON file.

Nothing comes from a network: weights are random, texts are Python's own reference, and the
tokenizer is the built-in model's unless another is named. Figures are written as they are measured,
so that a run which is ended leaves what it has. `docs/gpu.md` says in which order to run what.

python -m benchmarks.gpu --output figures --shape bge-reranker-base
python -m benchmarks.gpu --output figures --device cpu --tiny
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from benchmarks.checkpoints import with_shape
from benchmarks.cuda import describe_device, measured_rates, peak_tflops
from benchmarks.gpu_figures import MEASUREMENTS, TINY, Run, Sizes
from benchmarks.machine import describe_machine, versions
from benchmarks.peer_processes import Launcher, run_rounds, summarize
from benchmarks.peer_worker import GPU_ENCODER_PEERS, GPU_PEERS
from benchmarks.shapes import SHAPES
from benchmarks.texts import Pair
from bge_rerank_integrations.engine.loading.recipes import PACKED_DECODERS

BUILT_IN = "built-in"
# of these the engine has a class of its own, or transformers has one
_UNAVAILABLE = {"bge-reranker-v2-minicpm-layerwise", "bge-reranker-v2.5-gemma2-lightweight"}
NAMES = (BUILT_IN, *(name for name in SHAPES if name not in _UNAVAILABLE))
OURS = ("engine bfloat16", "engine float16")
_TINY_MODEL = Path(str(files("bge_rerank_integrations") / "models" / "tiny"))
# a share of the time that is left: starting the peers of a shape
_STARTING = 0.5


class Report:
    """Figures in a file that is written anew with each of them.

    :param path: of the JSON file.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path = path
        self.figures: dict[str, Any] = {**head, "shapes": {}}
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, shape: str, name: str, figures: object) -> None:
        """Add one group of figures of a shape."""
        self.figures["shapes"].setdefault(shape, {})[name] = figures
        written = self._path.with_suffix(".part")
        written.write_text(json.dumps(self.figures, indent=1) + "\n", encoding="utf-8")
        written.replace(self._path)
        print(f"{shape}, {name}: {json.dumps(figures)[:400]}", flush=True)


class Benchmark:
    """What is measured where, and until when.

    :param arguments: of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._end = time.monotonic() + arguments.budget_s
        self._device = torch.device(arguments.device)
        self._sizes = TINY if arguments.tiny else Sizes()
        is_cuda = self._device.type == "cuda"
        rates = measured_rates(
            self._device, torch.bfloat16 if is_cuda else torch.float32, side=8192 if is_cuda else 64
        )
        head = {
            "machine": describe_machine(),
            "device": {**describe_device(self._device), "measured": rates},
            "packages": versions(
                "torch", "transformers", "tokenizers", "sentence-transformers", "triton"
            ),
            "options": {key: str(value) for key, value in vars(arguments).items()},
        }
        self._peak = arguments.peak_tflops or peak_tflops(self._device)
        self.report = Report(arguments.output / "gpu.json", head)

    def run(self) -> None:
        """Measure all shapes; each has an even share of the time that is left."""
        shapes = self._arguments.shape or NAMES
        for number, shape in enumerate(shapes):
            end = time.monotonic() + self._left() / (len(shapes) - number)
            with ExitStack() as stack:
                temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                try:
                    folder = self._checkpoint(shape, temporary)
                    self._measure(shape, folder, end, temporary)
                except Exception:
                    self._fail(shape, "run")

    def _left(self) -> float:
        return max(self._end - time.monotonic(), 0.0)

    def _fail(self, shape: str, name: str) -> None:
        """Keep the reason why figures are missing; the others are measured all the same."""
        self.report.add(shape, name, {"failure": traceback.format_exc()[-1_500:]})

    def _checkpoint(self, shape: str, temporary: Path) -> Path:
        if shape == BUILT_IN:
            return _TINY_MODEL
        return with_shape(
            shape,
            self._arguments.tokenizer,
            temporary,
            device=str(self._device),
            dtype=torch.bfloat16,
            tiny=self._arguments.tiny,
        )

    def _measure(self, shape: str, folder: Path, end: float, temporary: Path) -> None:
        config = AutoConfig.from_pretrained(folder)
        run = Run(
            folder,
            config,
            self._device,
            self._arguments.dtype,
            self._sizes,
            self._peak,
            self._arguments.max_batch_tokens,
        )
        has_peers = "peers" in self._arguments.parts
        with run.engine:
            if "engine" in self._arguments.parts:
                # the peers' half of the time is theirs
                self._measure_engine(shape, run, end - has_peers * (end - time.monotonic()) / 2)
            pairs = run.bulk()
        if has_peers:
            is_decoder = config.model_type in PACKED_DECODERS
            names = [*GPU_PEERS, *(() if is_decoder else GPU_ENCODER_PEERS)]
            names = [name for name in names if name in (self._arguments.peer or names)]
            rows = self._measure_peers(names, folder, pairs, end, temporary)
            self.report.add(shape, "peers", rows)

    def _measure_engine(self, shape: str, run: Run, end: float) -> None:
        for name, measure in MEASUREMENTS.items():
            if time.monotonic() > end:
                self.report.add(shape, name, {"failure": "no time was left"})
                continue
            try:
                self.report.add(shape, name, measure(run))
            except Exception:
                self._fail(shape, name)

    def _measure_peers(
        self, names: list[str], folder: Path, pairs: list[Pair], end: float, temporary: Path
    ) -> list[dict[str, Any]]:
        environments = (folder / "bin" / "python" for folder in self._arguments.env)
        pythons = [Path(sys.executable), *environments]
        with ExitStack() as stack:
            launcher = Launcher(folder, pythons, temporary, str(self._device), None, stack)
            patience_s = _STARTING * (end - time.monotonic())
            peers, missing = launcher.start(names, at_once=True, patience_s=patience_s)
            left_s = max(end - time.monotonic(), 1.0)
            run_rounds(peers, pairs, self._sizes.repeats, "wall", patience_s=left_s)
        return summarize(peers, missing, len(pairs), ours=OURS, exact="engine float32")


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--shape", action="append", choices=NAMES, help="default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-batch-tokens", type=int, help="of the engine's passes")
    parser.add_argument(
        "--parts", nargs="+", choices=("engine", "peers"), default=["engine", "peers"]
    )
    parser.add_argument("--peer", action="append", choices=[*GPU_PEERS, *GPU_ENCODER_PEERS])
    parser.add_argument(
        "--env", type=Path, action="append", default=[], help="environment with more peers"
    )
    parser.add_argument(
        "--tokenizer", type=Path, default=_TINY_MODEL, help="folder with a tokenizer.json"
    )
    parser.add_argument("--peak-tflops", type=float, help="bfloat16, of a device not known by name")
    parser.add_argument("--budget-s", type=float, default=540.0, help="ends by then, about")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: to try the script")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Measure, and write figures to the folder."""
    arguments = parse(given)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here; --device cpu --tiny tries the script")
    Benchmark(arguments).run()


if __name__ == "__main__":
    main()
