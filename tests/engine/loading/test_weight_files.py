"""Which files of a folder are the checkpoint, decided as transformers decides it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import edit_json, save_checkpoint, write_json
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    RemBertConfig,
    RemBertForSequenceClassification,
)

from bge_rerank_integrations import ModelLoadError, RerankEngine

TEXTS = ["a bear of China", "hi", "an old text " * 9]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def scores(folder: Path | str) -> list[float]:
    with RerankEngine(str(folder), device="cpu", dtype="float32", normalize=False) as engine:
        return list(engine.score("what is a panda?", TEXTS))


@pytest.fixture
def copy(bert: str, tmp_path: Path) -> Path:
    """A copy of a tiny BERT that a test may add files to."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def scaled(folder: Path, factor: float = 0.7) -> dict[str, torch.Tensor]:
    return {name: tensor * factor for name, tensor in load_file(folder / WEIGHTS).items()}


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def shard(folder: Path, factor: float = 1.0) -> list[str]:
    """Save the model in several files, as transformers does; names of the files."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    model.save_pretrained(folder, max_shard_size="20KB")
    # transformers leaves it there
    (folder / WEIGHTS).unlink()
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


@pytest.mark.parametrize(
    "name",
    [
        "model_v2.safetensors",
        "model_backup.safetensors",
        "pytorch_model.safetensors",
        "model.fp16.safetensors",
        "adapter_model.safetensors",
        "a.safetensors",
    ],
)
def test_a_second_file_is_not_read(bert: str, copy: Path, name: str) -> None:
    save(scaled(copy), copy / name)
    assert scores(copy) == scores(bert)


@pytest.mark.parametrize("name", ["._model.safetensors", ".DS_Store", "._config.json"])
def test_files_of_macos_are_not_read(bert: str, copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"\x00\x05\x16\x07\x00")
    assert scores(copy) == scores(bert)


def test_a_single_file_of_any_name_is_read(bert: str, copy: Path) -> None:
    (copy / "._x.safetensors").write_bytes(b"\x00")
    (copy / WEIGHTS).rename(copy / "model.fp16.safetensors")
    assert scores(copy) == scores(bert)


def test_two_files_with_the_same_tensor_are_refused(copy: Path) -> None:
    (copy / WEIGHTS).rename(copy / "a.safetensors")
    shutil.copy(copy / "a.safetensors", copy / "b.safetensors")
    with pytest.raises(ModelLoadError, match=r"a\.safetensors and b\.safetensors both hold bert"):
        scores(copy)


def test_files_without_an_index_are_read_together(bert: str, copy: Path) -> None:
    shard(copy)
    (copy / INDEX).unlink()
    assert scores(copy) == scores(bert)


def test_one_file_saved_over_several(bert: str, copy: Path) -> None:
    """transformers deletes the old files and leaves the index."""
    shard(copy, 0.7)
    save(load_file(Path(bert) / WEIGHTS), copy / WEIGHTS)
    for path in copy.glob("model-*"):
        path.unlink()
    assert (copy / INDEX).exists()
    assert scores(copy) == scores(bert)


def test_a_new_file_beside_old_ones(
    bert: str, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard(copy, 0.7)
    shutil.copy(Path(bert) / WEIGHTS, copy)
    expected = AutoModelForSequenceClassification.from_pretrained(copy).state_dict()
    assert torch.equal(
        expected["classifier.weight"], load_file(copy / WEIGHTS)["classifier.weight"]
    )
    assert scores(copy) == scores(bert)
    assert f"{WEIGHTS} is read, as transformers does" in caplog.text


def test_a_name_that_the_config_says(bert: str, copy: Path) -> None:
    """transformers_weights comes before all other names."""
    save(scaled(copy), copy / "other.safetensors")
    expected = scores(copy)
    edit_json(copy / "config.json", transformers_weights="other.safetensors")
    assert scores(copy) != pytest.approx(expected, abs=1e-3)
    (copy / "other.safetensors").rename(copy / WEIGHTS)
    edit_json(copy / "config.json", transformers_weights="../model/model.safetensors")
    with pytest.raises(ModelLoadError, match=r"config\.json names the weights"):
        scores(copy)


def test_the_indexs_assignment_is_read(bert: str, copy: Path) -> None:
    """A file may still hold tensors that have moved to another."""
    files = shard(copy)
    assigned = json.loads((copy / INDEX).read_text("utf-8"))["weight_map"]
    moved = next(name for name, file in assigned.items() if file == files[0])
    stale = {
        **load_file(copy / files[-1]),
        moved: torch.ones(load_file(copy / files[0])[moved].shape),
    }
    save(stale, copy / files[-1])
    assert scores(copy) == scores(bert)


def test_a_tensor_that_the_index_does_not_name_is_read(bert: str, copy: Path) -> None:
    shard(copy)
    index = json.loads((copy / INDEX).read_text("utf-8"))
    del index["weight_map"]["classifier.bias"]
    write_json(copy / INDEX, index)
    assert scores(copy) == scores(bert)


def test_what_is_missing_of_several_files_is_named(copy: Path) -> None:
    files = shard(copy)
    (copy / files[1]).unlink()
    with pytest.raises(ModelLoadError, match=f"incomplete: 1 of the .*missing, {files[1]} among"):
        scores(copy)


def test_a_tensor_that_is_not_where_the_index_says(copy: Path) -> None:
    shard(copy)
    index = json.loads((copy / INDEX).read_text("utf-8"))
    index["weight_map"]["classifier.gain"] = index["weight_map"]["classifier.bias"]
    write_json(copy / INDEX, index)
    with pytest.raises(ModelLoadError, match=r"says that classifier\.gain is in model-"):
        scores(copy)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_an_index_that_cannot_be_read(copy: Path, content: str) -> None:
    (copy / WEIGHTS).rename(copy / "model-00001-of-00001.safetensors")
    (copy / INDEX).write_text(content)
    with pytest.raises(ModelLoadError, match=r"index\.json is not readable"):
        scores(copy)


def test_parts_of_tensors_are_refused(copy: Path) -> None:
    (copy / WEIGHTS).rename(copy / "shard-00001-model-00001-of-00002.safetensors")
    with pytest.raises(ModelLoadError, match="holds parts of tensors"):
        scores(copy)


@pytest.mark.parametrize("model", ["distilbert", "bert"])
@pytest.mark.parametrize("change", [0.7, 1.0])
def test_the_padded_path_reads_the_same_files(
    model: str, change: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole = request.getfixturevalue(model)
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    shard(folder, change)
    shutil.copy(Path(whole) / WEIGHTS, folder)
    save(scaled(folder), folder / "model_v2.safetensors")
    assert scores(folder) == scores(whole)


def drop(prefix: str) -> Callable[[str], str]:
    return lambda name: name.removeprefix(prefix)


def test_names_without_the_bodys_prefix(
    bert: str, xlmr: str, modernbert: str, tmp_path: Path
) -> None:
    """transformers adds its `base_model_prefix`."""
    for prefix, whole in (("bert.", bert), ("roberta.", xlmr), ("model.", modernbert)):
        folder = Path(shutil.copytree(whole, tmp_path / prefix))
        tensors = load_file(folder / WEIGHTS)
        save({name.removeprefix(prefix): each for name, each in tensors.items()}, folder / WEIGHTS)
        assert scores(folder) == scores(whole)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "base_model.model."])
def test_a_wrappers_prefix_is_told(copy: Path, prefix: str) -> None:
    tensors = load_file(copy / WEIGHTS)
    save({prefix + name: each for name, each in tensors.items()}, copy / WEIGHTS)
    with pytest.raises(ModelLoadError, match="is there: bge-rerank convert removes such a prefix"):
        scores(copy)


@pytest.mark.parametrize(
    "keys",
    [
        {"original_vocab_size": 250_002},
        {"num_train_examples": 1_000_000},
        {"task_specific_params": {"rerank": {"num_candidates": 10_000, "vocab_size": 10**9}}},
        {"output_embedding_size": 10**6, "prompt_mid_dim": 10**6, "keep_window_size": 10**6},
        {"num_samples": 10**9, "train_batch_size": 10**6, "teacher_hidden_size": 10**6},
        {"quantized_dim": 10**6, "max_window_layers": 10**4, "num_beams": 10**6},
    ],
    ids=lambda keys: next(iter(keys)),
)
@pytest.mark.parametrize("model", ["xlmr", "distilbert"])
def test_numbers_that_nothing_is_allocated_for(
    keys: dict[str, Any], model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole = request.getfixturevalue(model)
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    edit_json(folder / "config.json", **keys)
    assert scores(folder) == scores(whole)


def test_a_size_that_the_classifier_does_not_have(tmp_path: Path) -> None:
    """RemBERT's output embeddings are those of its language model."""
    config = RemBertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, input_embedding_size=8, output_embedding_size=100_000, num_labels=1,
    )  # fmt: skip
    folder = save_checkpoint(RemBertForSequenceClassification(config), tmp_path)
    assert len(scores(folder)) == 3


def test_a_size_of_any_name_is_refused_where_it_is_allocated_for(tmp_path: Path) -> None:
    config = RemBertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, input_embedding_size=8, num_labels=1,
    )  # fmt: skip
    save_checkpoint(RemBertForSequenceClassification(config), tmp_path)
    edit_json(tmp_path / "config.json", input_embedding_size=10**8)
    with pytest.raises(ModelLoadError, match=r"config\.json describes \d+ numbers, and the weig"):
        scores(tmp_path)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("model", ["bert", "distilbert"])
def test_quantized_weights_without_a_config_are_refused(
    model: str, kind: torch.dtype, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(model), tmp_path / "model"))
    tensors = load_file(folder / WEIGHTS)
    name = next(
        name
        for name in tensors
        if name.endswith("layer.1.output.dense.weight") or "q_lin.w" in name
    )
    tensors |= {name: tensors[name].to(kind), f"{name}_scale": torch.ones(1)}
    save(tensors, folder / WEIGHTS)
    with pytest.raises(ModelLoadError, match="weights must be floating point"):
        scores(folder)


def test_a_log_line_says_that_an_index_is_ignored_only_if_its_files_are_there(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    write_json(
        copy / INDEX, {"weight_map": {"classifier.bias": "model-00001-of-00002.safetensors"}}
    )
    scores(copy)
    assert "ignored" not in caplog.text
