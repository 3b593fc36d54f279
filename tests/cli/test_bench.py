from __future__ import annotations

import time
from itertools import islice
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bge_rerank_integrations.cli import bench
from bge_rerank_integrations.cli.app import app


def test_settings_are_timed_and_the_fastest_is_named(
    xlmr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a second of this clock is a tenth of one
    clock = SimpleNamespace(perf_counter=lambda: 10 * time.perf_counter())
    monkeypatch.setattr(bench, "time", clock)
    arguments = ["bench", "--model", xlmr, "--documents", "3", "--tokens", "20", "--seconds", "1"]
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--max-length", "24"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("float32") >= 2
    # documents of 20 words are longer
    assert "3 documents a call, 24 tokens a pair;" in done.stdout
    fastest = done.stdout.splitlines()[-1]
    assert fastest.startswith(f'fastest: model="{xlmr}", dtype="')
    assert "max_batch_tokens=" in fastest


def test_no_document_comes_twice_and_all_are_of_one_length() -> None:
    texts = list(islice(bench._texts(30), 20_000))
    assert len(set(texts)) == len(texts)
    assert {len(text.split()) for text in texts} == {30}


@pytest.mark.parametrize("option", [("--documents", "0"), ("--tokens", "3"), ("--seconds", "0")])
def test_wrong_numbers_are_refused(option: tuple[str, str]) -> None:
    assert CliRunner().invoke(app, ["bench", *option]).exit_code == 2
