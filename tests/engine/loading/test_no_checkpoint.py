"""What is no checkpoint that can be read is named, with what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_json
from huggingface_hub import snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError
from paths import GOLDEN

from bge_rerank_integrations import EngineConfig, ModelLoadError, RerankEngine
from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint

SHA = "0123456789abcdef0123456789abcdef01234567"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 90\n"


def load(model: Path | str, **settings: Any) -> None:
    RerankEngine(str(model), device="cpu", **settings).close()


def gguf(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "bge-reranker-v2-m3-Q8_0.gguf").write_bytes(b"GGUF")


def gguf_alone(folder: Path) -> None:
    gguf(folder)
    (folder / "config.json").unlink()


def onnx(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")


def onnx_alone(folder: Path) -> None:
    onnx(folder)
    (folder / "config.json").rename(folder / "onnx" / "config.json")


def zero(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "global_step500").mkdir()
    for name in ("zero_to_fp32.py", "training_args.bin", "latest"):
        (folder / name).write_text("")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(POINTER)


def pointer_of_config(folder: Path) -> None:
    (folder / "config.json").write_text(POINTER)


def parent(folder: Path) -> None:
    inner = folder / "checkpoint-500"
    shutil.copytree(folder, inner)
    inner.rename(folder / "checkpoint-1000")
    (folder / "checkpoint-500").mkdir()
    for path in folder.glob("*.*"):
        path.unlink()


def parent_of_one(folder: Path) -> None:
    inner = folder / "merged_model"
    shutil.copytree(folder, inner)
    (folder / "config.json").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def adapter_without_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "config.json").unlink()


def pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"")


def tensorflow(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "tf_model.h5")


def nothing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


FOLDERS = {
    gguf: r"Q8_0\.gguf is GGUF, for llama\.cpp; take the model that it was made of",
    gguf_alone: r"Q8_0\.gguf is GGUF, for llama\.cpp; take the model that it was made of",
    onnx: "it has ONNX weights only; take the model that they were exported from",
    onnx_alone: "it has ONNX weights only; take the model that they were exported from",
    zero: r"run `python zero_to_fp32\.py \. OUT --safe_serialization`",
    pointer: r"model\.safetensors is a git-lfs pointer, and not the file itself: run git lfs pull",
    pointer_of_config: r"config\.json is a git-lfs pointer",
    parent: r"there is no config\.json in .*; did you mean .*/checkpoint-1000\?",
    parent_of_one: r"there is no config\.json in .*; did you mean .*/merged_model\?",
    no_config: r"there is no config\.json in .*: copy it from the base model",
    adapter_without_config: r"the weights of an adapter, and no adapter_config\.json",
    pickles: r"found \['pytorch_model\.bin'\]\. `bge-rerank convert FOLDER OUT`",
    tensorflow: r"found \['tf_model\.h5'\]$",
    nothing: "found no weights",
}


@pytest.mark.parametrize("spoil", FOLDERS, ids=lambda function: function.__name__)
def test_a_folder_says_what_it_is(xlmr: str, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(xlmr, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(ModelLoadError, match=FOLDERS[spoil]):
        load(folder)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("https://huggingface.co/BAAI/bge-reranker-v2-m3", r"id is 'BAAI/bge-reranker-v2-m3'"),
        ("https://hf.co/BAAI/bge-reranker-base/tree/main", r"id is 'BAAI/bge-reranker-base'"),
        ("s3://bucket/model", "is an address, and a model is a folder or a hub id"),
        ("BAAI/bge-reranker-v2-m3/", r"'BAAI/bge-reranker-v2-m3' is a hub id"),
        ("BAAI/bge-reranker-v2-m3@main", r"'BAAI/bge-reranker-v2-m3' with revision='main'"),
        (r"C:\models\bge-reranker", "a path of Windows, and this is not Windows"),
        (r"models\bge-reranker", "a path of Windows, and this is not Windows"),
        ("models--me--my-reranker", r"the hub id is me/my-reranker"),
        ("/no/such/folder", r"there is no model folder '/no/such/folder'"),
    ],
)
def test_a_name_says_what_to_write_instead(model: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model-Q8_0.gguf", r"is a GGUF file, and a model is a folder: model-Q8_0\.gguf is GGUF"),
        ("model.safetensors", "is a file of weights, and a model is a folder: give the folder"),
        ("config.json", "is a file, and a model is a folder"),
    ],
)
def test_the_path_of_a_file(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path / name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with me/mine in it, as its client leaves it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = tmp_path / "models--me--mine"
    snapshot = model / "snapshots" / SHA
    shutil.copytree(GOLDEN / "xlmr", snapshot)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(SHA)
    return tmp_path


def listing(cache: Path, *never_fetched: str) -> None:
    """The hub's list of a model's files, which its client keeps."""
    snapshot = cache / "models--me--mine" / "snapshots" / SHA
    names = [path.name for path in snapshot.iterdir()]
    files = {name: {"size": 9, "blob_id": "a" * 40} for name in (*names, *never_fetched)}
    (cache / "models--me--mine" / "trees").mkdir()
    path = cache / "models--me--mine" / "trees" / f"{SHA}.json"
    write_json(path, {"format_version": 1, "files": files})


def load_cached(cache: Path, **settings: Any) -> None:
    load("me/mine", cache_folder=str(cache), local_files_only=True, **settings)


def test_the_caches_own_folder(cache: Path) -> None:
    with pytest.raises(ModelLoadError, match=rf"did you mean .*{SHA} \(or the hub id me/mine\)"):
        load(cache / "models--me--mine")


def test_another_revision_than_the_cached_one(cache: Path) -> None:
    with pytest.raises(ModelLoadError, match=rf"but its revision 'v9' is not.* there is {SHA}"):
        load_cached(cache, revision="v9")


def test_a_download_that_was_interrupted(cache: Path) -> None:
    model = cache / "models--me--mine"
    (model / "snapshots" / SHA / "model.safetensors").unlink()
    (model / "blobs").mkdir()
    (model / "blobs" / "abc.incomplete").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="the download was interrupted"):
        load_cached(cache)
    # what `bge-rerank models` asks for is there
    config = EngineConfig("me/mine", cache_folder=str(cache), local_files_only=True)
    assert open_checkpoint(config, with_weights=False).model_type == "xlm-roberta"


@pytest.mark.parametrize(
    "never_fetched",
    [
        ["special_tokens_map.json", "more.json"],
        ["training_metrics.json", "requirements.txt"],
        ["model.fp16.safetensors"],
        ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
        ["sentencepiece.bpe.model", "vocab.txt", "generation_config.json"],
        ["pytorch_model.bin", "onnx/model.onnx"],
    ],
)
def test_a_listing_that_names_files_never_fetched(cache: Path, never_fetched: list[str]) -> None:
    listing(cache, *never_fetched)
    load_cached(cache)


@pytest.mark.parametrize("needed", ["modules.json", "tokenizer_config.json", "model.safetensors"])
def test_a_listing_that_names_a_file_that_is_needed(cache: Path, needed: str) -> None:
    path = cache / "models--me--mine" / "snapshots" / SHA / needed
    path.unlink(missing_ok=True)
    listing(cache, needed)
    with pytest.raises(ModelLoadError, match=rf"incomplete in the local cache.*{needed}"):
        load_cached(cache)


def test_the_clients_own_reading_of_the_listing(cache: Path) -> None:
    """The fixture's cache is one that the hub's client reads."""
    listing(cache, "more.json")
    with pytest.raises(IncompleteSnapshotError, match="is incomplete: 1 file"):
        snapshot_download("me/mine", cache_dir=cache, local_files_only=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_an_index_beside_no_file(xlmr: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(xlmr, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "x.safetensors"}})
    with pytest.raises(ModelLoadError, match=r"the files that model\.safetensors\.index\.json"):
        load(folder)
