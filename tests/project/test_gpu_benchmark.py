"""The benchmark for GPUs, on the CPU with tiny shapes: there is no line that only a GPU runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

gpu = pytest.importorskip("benchmarks.gpu", reason="the benchmarks are not in the sdist")

from benchmarks import cuda, gpu_figures  # noqa: E402
from benchmarks.peer_processes import Launcher, Peer, run_rounds, summarize  # noqa: E402
from benchmarks.shapes import SHAPES, forward_flops  # noqa: E402
from benchmarks.texts import CutTexts  # noqa: E402

TINY_MODEL = Path(gpu._TINY_MODEL)


def run(folder: Path, *options: str) -> dict[str, Any]:
    gpu.main(["--output", str(folder), "--device", "cpu", "--tiny", *options])
    figures: dict[str, Any] = json.loads((folder / "gpu.json").read_text("utf-8"))
    return figures


def test_every_figure_of_an_encoder_and_of_a_decoder(tmp_path: Path) -> None:
    shapes = ["bge-reranker-base", "Qwen3-Reranker-0.6B"]
    options = [option for shape in shapes for option in ("--shape", shape)]
    report = run(tmp_path, *options, "--parts", "engine", "--peak-tflops", "1")
    assert report["device"]["device"] == "cpu"
    assert report["machine"]["cores"]
    for shape in shapes:
        figures = report["shapes"][shape]
        assert list(figures) == list(gpu_figures.MEASUREMENTS)
        assert not [name for name, each in figures.items() if "failure" in each]
        assert figures["throughput"]["pairs_per_s"] > 0
        assert 0 < figures["throughput"]["share_of_peak"] < 1
        assert figures["precision"]["float32_alone_differs_by"] < 1e-5
        assert figures["precision"]["float16"]["kendall_tau"] > 0.9
        assert figures["latency"]["4 documents"]["known"]["p50_ms"] > 0


def test_a_figure_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: gpu_figures.Run) -> gpu_figures.Figures:
        raise RuntimeError("the device is lost")

    wanted = {"throughput": lost, "memory": gpu_figures.memory}
    monkeypatch.setattr(gpu, "MEASUREMENTS", wanted)
    options = ["--shape", "ettin-reranker-32m", "--peer", "infinity bfloat16"]
    figures = run(tmp_path, *options)["shapes"]["ettin-reranker-32m"]
    assert "the device is lost" in figures["throughput"]["failure"]
    assert figures["memory"]["peak_mib"] > 0
    (row,) = figures["peers"]
    assert row == {
        "peer": "infinity bfloat16",
        "failure": "not installed in any environment: infinity-emb",
    }


def test_when_the_time_is_over_what_is_missing_is_named(tmp_path: Path) -> None:
    options = ["--shape", "ettin-reranker-32m", "--parts", "engine", "--budget-s", "0"]
    figures = run(tmp_path, *options)["shapes"]["ettin-reranker-32m"]
    assert set(map(str, figures.values())) == {"{'failure': 'no time was left'}"}


def test_a_shape_that_fails_leaves_the_others(tmp_path: Path) -> None:
    options = ["--shape", "bge-reranker-base", "--tokenizer", str(tmp_path), "--parts", "engine"]
    assert (
        "tokenizer.json" in run(tmp_path, *options)["shapes"]["bge-reranker-base"]["run"]["failure"]
    )


def peer(folder: Path, name: str, code: str, stack: ExitStack) -> Peer:
    """A worker that reads questions and answers what its code prints."""
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", f"import sys, time\nfor line in sys.stdin:\n {code}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    return stack.enter_context(Peer(name, process, log))


def test_peers_that_end_or_fall_silent_leave_the_run(tmp_path: Path) -> None:
    answer = json.dumps({"seconds": {"wall": 0.5}, "scores": [1.0]})
    with ExitStack() as stack:
        peers = [
            peer(tmp_path, "good", f"print({answer!r}, flush=True)", stack),
            peer(tmp_path, "ends", "sys.exit('no kernel image')", stack),
            peer(tmp_path, "silent", "time.sleep(20)", stack),
        ]
        started = time.monotonic()
        run_rounds(peers, [("q", "d")], 2, "wall", patience_s=1.0)
    assert time.monotonic() - started < 5
    rows = summarize(peers, {"absent": "not installed"}, 10, ours=["good"], exact="good")
    good, *others = rows
    assert (good["pairs_per_s"], good["good is faster by"]) == (20.0, 1.0)
    assert good["largest_difference"] == 0
    failures = {row["peer"]: row["failure"] for row in others}
    assert "no kernel image" in failures["ends"]
    assert failures["silent"] == "no answer within 1 s"
    assert failures["absent"] == "not installed"


def test_a_peer_that_no_environment_has_is_named(tmp_path: Path) -> None:
    with ExitStack() as stack:
        launcher = Launcher(TINY_MODEL, [Path(sys.executable)], tmp_path, "cpu", None, stack)
        peers, missing = launcher.start(["vLLM bfloat16"], at_once=True, patience_s=1)
    assert peers == []
    assert missing == {"vLLM bfloat16": "not installed in any environment: vllm"}


def test_texts_are_new_and_as_long_as_asked_for() -> None:
    tokenizer = Tokenizer.from_file(str(TINY_MODEL / "tokenizer.json"))
    documents = CutTexts(tokenizer).documents(200, 100, spread=0.5)
    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in documents]
    assert len(set(documents)) == 200
    assert sum(lengths) / 200 == pytest.approx(102, abs=2)  # and a number before each
    assert min(lengths) < 60
    assert max(lengths) > 145


@pytest.mark.parametrize(
    ("shape", "length", "gflop"),
    [
        # H = hidden size, n = length: linear layers, and 4 H n of attention a token and layer
        ("bge-reranker-base", 128, 12 * 128 * (24 * 768**2 + 4 * 768 * 128) / 1e9),
        ("bge-reranker-v2-m3", 512, 24 * 512 * (24 * 1024**2 + 4 * 1024 * 512) / 1e9),
        # one head of keys for eight of queries; a token sees itself and those before it
        ("bge-reranker-v2-gemma", 99, 18 * 99 * 4 * 2048 * (2048 + 256 + 1.5 * 16_384 + 50) / 1e9),
    ],
)
def test_operations_of_a_pass(shape: str, length: int, gflop: float) -> None:
    assert forward_flops(SHAPES[shape], [length]) == pytest.approx(gflop * 1e9)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 3090", None),
    ],
)
def test_the_rate_of_a_known_device(
    name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert cuda.peak_tflops(torch.device("cuda")) == peak
