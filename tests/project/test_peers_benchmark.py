"""The benchmark against other rerankers compares like with like, on a tiny checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from background import Background
from paths import GOLDEN, ROOT

peers = pytest.importorskip("benchmarks.peers", reason="the benchmarks are not in the sdist")

from benchmarks import machine, plot_peers  # noqa: E402
from benchmarks.peer_worker import CPU_PEERS, precision_of  # noqa: E402

PRECISIONS = {"float32", "bfloat16", "int8"}


def test_every_peer_names_the_precision_that_it_computes_in() -> None:
    assert {precision_of(name) for name in CPU_PEERS} == PRECISIONS
    libraries = {"engine": set(), "sentence-transformers": set()}
    for name in CPU_PEERS:
        library, precision = name.split(" ")[0], precision_of(name)
        libraries.setdefault(library, set()).add(precision)
    assert libraries["engine"] == PRECISIONS
    # as it is, without an exported format
    for precision in ("float32", "bfloat16"):
        assert f"sentence-transformers {precision}" in CPU_PEERS


@pytest.mark.parametrize(
    ("flags", "hidden", "expected"),
    [
        ("avx512f avx512_bf16", None, True),
        ("avx512f amx_bf16", None, True),
        ("avx512f avx512_vnni", None, False),
        ("avx512f avx512_bf16", "AVX512_CORE_VNNI", False),
        ("avx512f avx512_bf16", "AVX512_CORE_BF16", True),
    ],
)
def test_bfloat16_is_measured_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, hidden: str | None, expected: bool
) -> None:
    monkeypatch.setattr(machine, "_cpu_field", lambda _: flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if hidden:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", hidden)
    precisions = {precision_of(name) for name in peers.peers_of_this_processor()}
    assert precisions == (PRECISIONS if expected else PRECISIONS - {"bfloat16"})


@pytest.mark.parametrize("options", [["--pairs", "63"], ["--collection", "small"]])
def test_fewer_pairs_than_two_batches_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for name in ("corpus", "queries"):
        rows = ({"_id": str(number), "text": "a text"} for number in range(40))
        (small / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [str(small) if each == "small" else each for each in options]
    with pytest.raises(SystemExit):
        peers.main([str(GOLDEN / "xlmr"), *options])
    assert "expected at least 64 pairs of one corpus" in capsys.readouterr().err


MEASURED = ["engine float32", "engine int8", "sentence-transformers float32"]
RUN = Background(
    *("-m", "benchmarks.peers", str(GOLDEN / "xlmr"), "--pairs", "64", "--rounds", "1"),
    *(option for name in MEASURED for option in ("--only", name)),
    *("--results", "."),
    writes_files=True,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
)


@pytest.mark.background(RUN)
def test_a_run_says_precisions_texts_weights_and_machine_and_compares_within_a_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = RUN.wait()
    assert done.returncode == 0, done.stderr
    table = done.stdout
    (file,) = RUN.folder.glob("*/xlmr-python-s-reference.json")
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert (report["pairs"], report["texts"]) == (64, "Python's reference")
    assert report["weights"] == "its own"
    assert report["machine"]["cores"]
    rows = {row["peer"]: row for row in report["rows"]}
    assert list(rows) == MEASURED
    peer = rows["sentence-transformers float32"]
    assert rows["engine float32"]["largest_difference"] < 1e-5
    assert f"| float32 | sentence-transformers float32 | {peer['pairs_per_s']} | " in table
    assert f"| {peer['engine float32 is faster by']} | 0.0 |" in table
    picture = tmp_path / "peers.png"
    monkeypatch.setattr("sys.argv", ["plot_peers", str(file), str(picture)])
    plot_peers.main()
    assert picture.stat().st_size > 10_000
