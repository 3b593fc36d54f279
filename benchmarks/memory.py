"""Peak memory while a checkpoint is loaded, over the size of its weights in the chosen precision.

Files that safetensors maps into memory count only as long as the system leaves them there; they
are told apart from memory that the process cannot give back.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from benchmarks.checkpoints import with_weights
from benchmarks.machine import memory_mib
from bge_rerank_integrations import EngineConfig
from bge_rerank_integrations.engine.loading.model import load

_POLL_S = 0.002


class Peak(threading.Thread):
    """Watches anonymous memory until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            self.mib = max(self.mib, memory_mib("RssAnon"))
            time.sleep(_POLL_S)


def main() -> None:
    """Load once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = with_weights(arguments.model, Path(temporary))
        if folder != arguments.model:
            raise SystemExit("give a folder with weights: making them would count as well")
    # a tokenizer of 250,000 pieces takes memory too, but none of it is weights
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    before = memory_mib("RssAnon")
    del tokenizer
    peak = Peak()
    peak.start()
    model = load(EngineConfig(str(arguments.model), dtype=arguments.dtype, device="cpu"))
    peak.stopped = True
    peak.join()
    files = sum(file.stat().st_size for file in arguments.model.glob("*.safetensors"))
    # checkpoints are float32 here
    weights_mib = files * torch.empty(0, dtype=model.dtype).element_size() / 4 / 2**20
    figures = {
        "weights_mib": int(weights_mib),
        "peak_mib": int(peak.mib - before),
        "after_mib": int(memory_mib("RssAnon") - before),
        "peak_over_weights": round((peak.mib - before) / weights_mib, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
