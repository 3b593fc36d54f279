"""Checkpoints as users have them: complete, broken, of another kind, or not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from checkpoints import SMALL, edit_json, save_checkpoint
from fakes import DOWNLOAD, load
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from bge_rerank_integrations import (
    EngineConfig,
    ModelLoadError,
    RerankEngine,
    UnsupportedModelError,
)
from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint


@pytest.fixture
def copy(xlmr: str, tmp_path: Path) -> Path:
    """A copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(xlmr, tmp_path / "model"))


def load_folder(folder: Path | str, **settings: str) -> None:
    load(EngineConfig(str(folder), device="cpu", **settings))  # type: ignore[arg-type]


def test_the_models_own_limit_is_the_ceiling(
    bert: str, xlmr: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RerankEngine(bert, device="cpu") as engine:
        assert engine.max_length == 128
    assert "max_length is 128" in caplog.text
    # fairseq's positions start at padding_idx + 1
    with RerankEngine(xlmr, device="cpu", max_length=1000) as engine:
        assert engine.max_length == 512
        assert engine.with_options(max_length=99).max_length == 99


def test_a_text_of_the_whole_length_can_be_scored(xlmr: str) -> None:
    with RerankEngine(xlmr, device="cpu", max_length=1000) as engine:
        assert engine.rerank("q", ["word " * 5000]).total_tokens == 512


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no model folder"):
        load_folder(tmp_path / "none")


def test_a_name_that_is_no_hub_id() -> None:
    with pytest.raises(ModelLoadError, match=r"neither a folder nor a hub id .*'tiny'"):
        load_folder("bge reranker!")


def test_a_model_that_may_not_be_downloaded_names_the_built_in_one(tmp_path: Path) -> None:
    folder = str(tmp_path)
    config = EngineConfig("owner/name", cache_folder=folder, local_files_only=True, device="cpu")
    with pytest.raises(ModelLoadError, match=r"not in the local cache and .*switched off.*'tiny'"):
        load(config)


def test_a_download_asks_for_what_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, xlmr: str
) -> None:
    asked: dict[str, object] = {}

    def download(model: str, **options: object) -> str:
        asked.update(options, model=model)
        return xlmr

    monkeypatch.setattr(DOWNLOAD, download)
    config = EngineConfig("owner/name", revision="abc", cache_folder="cache", device="cpu")
    assert load(config).layers == (4,)
    assert (asked["model"], asked["revision"], asked["cache_dir"]) == ("owner/name", "abc", "cache")
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_download_takes_the_files_of_modules_and_no_others(
    monkeypatch: pytest.MonkeyPatch, xlmr: str, with_weights: bool
) -> None:
    asked: dict[str, Any] = {}

    def download(_: str, **options: Any) -> str:
        asked.update(options)
        return xlmr

    monkeypatch.setattr(DOWNLOAD, download)
    open_checkpoint(EngineConfig("owner/name"), with_weights=with_weights)
    needed = ["config.json", "chat_template.jinja", "1_Pooling/config.json", "2_Dense/config.json"]
    weights = ["model-00001-of-2.safetensors", "2_Dense/model.safetensors"]
    others = ["pytorch_model.bin", "2_Dense/pytorch_model.bin", "onnx/model.json", "modeling.py",
              "openvino/model.safetensors", "1_Pooling/more/config.json"]  # fmt: skip
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    taken = set(filter_repo_objects([*needed, *weights, *others], **patterns))
    assert taken == {*needed, *(weights if with_weights else [])}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.RepositoryNotFoundError, "the hub has no model"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision 'v9'"),
        (huggingface_hub.errors.GatedRepoError, "ask for access"),
        (huggingface_hub.errors.LocalEntryNotFoundError, r"hub cannot be reached; model='tiny'"),
        (ConnectionError, r"hub cannot be reached; model='tiny'"),
    ],
)
def test_what_the_hub_says_is_told(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], message: str
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error.__new__(error)

    monkeypatch.setattr(DOWNLOAD, download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(ModelLoadError, match=message):
        load_folder("owner/name", revision="v9")


def test_a_checkpoint_without_a_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"there is no config\.json"):
        load_folder(copy)


def test_a_config_that_is_not_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"config\.json is not readable"):
        load_folder(copy)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"must be safetensors.*found \['pytorch_model.bin'\]"):
        load_folder(copy)


@pytest.mark.parametrize("kept_bytes", [0, 100, 500_000])
def test_truncated_weights(copy: Path, kept_bytes: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept_bytes])
    with pytest.raises(ModelLoadError, match="the weights cannot be read"):
        load_folder(copy)


def test_a_broken_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelLoadError, match="the tokenizer cannot be read"):
        load_folder(copy)


def test_missing_head_weights_are_not_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    kept = {name: w for name, w in weights.items() if not name.startswith("classifier.out_proj")}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"classifier\.out_proj\.weight is missing"):
        load_folder(copy)


def test_weights_of_another_shape(copy: Path) -> None:
    edit_json(copy / "config.json", hidden_size=64)
    with pytest.raises(ModelLoadError, match=r"classifier\.dense\.weight is of another shape"):
        load_folder(copy)


def test_an_embedding_model_is_no_reranker(tmp_path: Path) -> None:
    save_checkpoint(BertModel(BertConfig(**SMALL)), tmp_path)
    with pytest.raises(UnsupportedModelError, match="is a BertModel of type 'bert', and nothing"):
        load_folder(tmp_path)


def test_a_generator_is_no_reranker(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2)
    save_checkpoint(GPT2LMHeadModel(config), tmp_path)
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel"):
        load_folder(tmp_path)


def test_a_classifier_of_several_labels_is_no_reranker(tmp_path: Path) -> None:
    save_checkpoint(BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)), tmp_path)
    with pytest.raises(UnsupportedModelError, match="classifies into 3 labels"):
        load_folder(tmp_path)


def test_weights_are_held_in_the_precision_asked_for(xlmr: str) -> None:
    loaded = load(EngineConfig(xlmr, device="cpu", dtype="bfloat16"))
    assert loaded.dtype is torch.bfloat16


def test_loading_says_nothing_on_the_terminal(xlmr: str, capfd: pytest.CaptureFixture[str]) -> None:
    load_folder(xlmr)
    assert capfd.readouterr() == ("", "")
