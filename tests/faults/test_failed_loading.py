"""Loading that fails: the error is clear, the next attempt is free, and no code is run."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from callers import PATIENCE_S, assert_works, error_of, in_thread
from checkpoints import edit_json
from fakes import DOWNLOAD, LOAD, fake_model
from paths import GOLDEN

from bge_rerank_integrations import EngineConfig, ModelLoadError, RerankEngine

TRAP = """
from pathlib import Path
Path(__file__).with_name("trapped").touch()
Path({folder!r}, "trapped").touch()
raise SystemExit("code of a checkpoint was run")
"""


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self._mark,)


def set_traps(folder: Path) -> None:
    """Put code in all places that transformers would run if it trusted the checkpoint."""
    names = {
        "AutoConfig": "trap.Config",
        "AutoModel": "trap.Model",
        "AutoModelForSequenceClassification": "trap.Model",
        "AutoModelForCausalLM": "trap.Model",
        "AutoTokenizer": ["trap.Tokenizer", "trap.Tokenizer"],
    }
    (folder / "trap.py").write_text(TRAP.format(folder=str(folder)))
    for name in ("config.json", "tokenizer_config.json"):
        edit_json(folder / name, auto_map=names)
    for name in ("pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Trap(folder / "trapped")))


@pytest.mark.parametrize("name", ["xlmr", "gemma", "minicpm", "light"])
def test_code_in_a_checkpoint_is_never_run(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    set_traps(folder)
    with RerankEngine(str(folder), device="cpu") as engine:
        trapped = engine.score("q", ["a"])
    assert not list(tmp_path.rglob("trapped"))
    with RerankEngine(str(GOLDEN / name), device="cpu") as engine:
        assert engine.score("q", ["a"]) == trapped


@pytest.mark.parametrize("model_type", ["xlm-roberta", "custom"])
def test_code_in_an_unknown_architecture_is_never_run(model_type: str, tmp_path: Path) -> None:
    folder = tmp_path / "custom"
    shutil.copytree(GOLDEN / "xlmr", folder)
    edit_json(folder / "config.json", model_type=model_type, architectures=["CustomReranker"])
    set_traps(folder)
    with pytest.raises(ModelLoadError):
        RerankEngine(str(folder), device="cpu")
    assert not list(tmp_path.rglob("trapped"))


def test_weights_that_are_a_pickle_by_another_name_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "xlmr", folder)
    torch.save({"weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match="the weights cannot be read"):
        RerankEngine(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["xlmr", "gemma", "minicpm", "light"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_of_every_family(name: str, kept: float, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: int(len(weights) * kept)])
    with pytest.raises(ModelLoadError, match=r"cannot be (read|loaded)"):
        RerankEngine(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["xlmr", "gemma"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b"{}"])
def test_files_with_other_content(name: str, file: str, content: bytes, tmp_path: Path) -> None:
    """An error of this package, or an engine that works: never another library's error."""
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    (folder / file).write_bytes(content)
    try:
        engine = RerankEngine(str(folder), device="cpu")
    except ModelLoadError as error:
        assert name in str(error)  # noqa: PT017  # some of these may be read
    else:
        assert len(engine.score("q", ["a"])) == 1
        engine.close()


def test_the_next_attempt_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([ModelLoadError("the disk was full"), RuntimeError("a bug"), None])

    def load(_: EngineConfig) -> Any:
        error = next(errors)
        if error is not None:
            raise error
        return fake_model()

    monkeypatch.setattr(LOAD, load)
    with pytest.raises(ModelLoadError, match="the disk was full"):
        RerankEngine.shared("fake/loading", normalize=False)
    with pytest.raises(ModelLoadError, match="fake/loading cannot be loaded: RuntimeError: a bug"):
        RerankEngine.shared("fake/loading", normalize=False)
    with RerankEngine.shared("fake/loading", normalize=False) as engine:
        assert_works(engine)


def test_callers_that_wait_for_a_loading_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Event()

    def load(_: EngineConfig) -> Any:
        assert release.wait(PATIENCE_S)
        raise ModelLoadError("the disk was full")

    monkeypatch.setattr(LOAD, load)
    callers = [in_thread(RerankEngine.shared, "fake/many") for _ in range(8)]
    release.set()
    started = time.monotonic()
    for caller in callers:
        assert isinstance(error_of(caller), ModelLoadError)
    assert time.monotonic() - started < 1


def test_loading_one_model_does_not_hold_up_another(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Event()

    def load(config: EngineConfig) -> Any:
        assert config.model != "fake/slow" or release.wait(PATIENCE_S)
        return fake_model()

    monkeypatch.setattr(LOAD, load)
    slow = in_thread(RerankEngine.shared, "fake/slow", normalize=False)
    with RerankEngine.shared("fake/quick", normalize=False) as quick:
        assert_works(quick)
    assert not slow.done()
    release.set()
    slow.result(PATIENCE_S).close()


def test_a_download_cut_off_half_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's index names files that never came."""
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "gemma", folder)
    weight_map = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}
    (folder / "model.safetensors").rename(folder / "model-00002-of-00002.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr(DOWNLOAD, lambda *_, **__: str(folder))
    with pytest.raises(ModelLoadError, match=r"incomplete: .* model-00001-of-00002\.safetensors"):
        RerankEngine("owner/name", device="cpu")
