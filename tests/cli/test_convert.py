"""``bge-rerank convert``: what trainers leave becomes a folder that loads anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import edit_json, write_json
from paths import GOLDEN
from safetensors.torch import load_file, save_file
from saved_models import dense_head, save_modules
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig
from typer.testing import CliRunner

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.engine.loading import conversion

TEXTS = ["a bear of China", "hi", "an old text " * 9]
WEIGHTS = "model.safetensors"


def scores(folder: Path | str, **settings: Any) -> list[float]:
    with RerankEngine(
        str(folder), device="cpu", dtype="float32", normalize=False, **settings
    ) as engine:
        return list(engine.score("what is a panda?", TEXTS))


def run(folder: Path | str, out: Path, exit_code: int = 0) -> str:
    done = CliRunner().invoke(app, ["convert", str(folder), str(out)])
    assert done.exit_code == exit_code, done.output
    return done.output


@pytest.fixture(params=["bert", "xlmr", "modernbert", "distilbert"])
def whole(request: pytest.FixtureRequest) -> str:
    """A checkpoint in safetensors."""
    return str(request.getfixturevalue(request.param))


def pickled(whole: str, folder: Path, prefix: str = "") -> Path:
    """A copy with the weights that torch.save writes, under the names of a wrapper."""
    shutil.copytree(whole, folder)
    (folder / WEIGHTS).unlink()
    tensors = load_file(Path(whole) / WEIGHTS)
    state = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save(state, folder / "pytorch_model.bin")
    torch.save({"learning_rate": 1}, folder / "training_args.bin")
    return folder


@pytest.mark.parametrize(
    ("prefix", "told"),
    [
        ("", ""),
        ("module.", "removed 'module.' from the names"),
        ("_orig_mod.", "removed '_orig_mod.' from the names"),
        ("model.", "removed 'model.' from the names"),
        ("base_model.model.", "removed 'base_model.model.' from the names"),
        ("module._orig_mod.model.", "removed 'module.' from the names"),
    ],
)
def test_pickled_weights_under_a_wrappers_names(
    whole: str, tmp_path: Path, prefix: str, told: str
) -> None:
    out = tmp_path / "out"
    printed = run(pickled(whole, tmp_path / "model", prefix), out)
    assert "tensors in pytorch_model.bin" in printed
    assert told in printed
    assert "it is scored by the recipe sequence-classification" in printed
    assert scores(out) == scores(whole)
    _, report = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not (out / "training_args.bin").exists()


def test_weights_that_an_old_torch_saved(bert: str, tmp_path: Path) -> None:
    folder = pickled(bert, tmp_path / "model")
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    run(folder, tmp_path / "out")
    assert scores(tmp_path / "out") == scores(bert)


def test_wrapped_safetensors(bert: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    tensors = load_file(folder / WEIGHTS)
    save_file({f"model.{name}": each for name, each in tensors.items()}, folder / WEIGHTS)
    run(folder, tmp_path / "out")
    assert scores(tmp_path / "out") == scores(bert)


def test_layers_that_were_compiled_one_by_one(bert: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    tensors = load_file(folder / WEIGHTS)
    names = {name: name.replace(".attention.", "._orig_mod.attention.") for name in tensors}
    save_file({names[name]: each for name, each in tensors.items()}, folder / WEIGHTS)
    run(folder, tmp_path / "out")
    assert scores(tmp_path / "out") == scores(bert)


def test_pickled_weights_in_several_files(bert: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    assigned = {}
    for number in (0, 1):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        part = dict(sorted(tensors.items())[number::2])
        torch.save(part, folder / file)
        assigned.update(dict.fromkeys(part, file))
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": assigned})
    run(folder, tmp_path / "out")
    assert scores(tmp_path / "out") == scores(bert)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert "pytorch_model-00002-of-00002.bin is missing" in run(folder, tmp_path / "two", 1)


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_weights_within_a_trainers_state(bert: str, tmp_path: Path, key: str) -> None:
    folder = pickled(bert, tmp_path / "model")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({key: state, "epoch": 3}, folder / "pytorch_model.bin")
    run(folder, tmp_path / "out")
    assert scores(tmp_path / "out") == scores(bert)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_decoder_whose_tables_are_tied(tmp_path: Path, prefix: str) -> None:
    base = str(GOLDEN / "gemma")
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    (folder / WEIGHTS).unlink()
    state = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert "lm_head.weight" in state
    names = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(names, folder / "pytorch_model.bin")
    run(folder, tmp_path / "out")
    settings = {"recipe": "bge-reranker-v2-gemma"}
    expected = pytest.approx(scores(base, **settings), abs=1e-5)
    assert scores(tmp_path / "out", **settings) == expected


@pytest.mark.parametrize("model", ["minicpm", "light"])
def test_models_of_classes_that_transformers_lacks(tmp_path: Path, model: str) -> None:
    folder = pickled(str(GOLDEN / model), tmp_path / "model", "module.")
    run(folder, tmp_path / model)
    written, expected = (load_file(folder / model / WEIGHTS) for folder in (tmp_path, GOLDEN))
    assert written.keys() == expected.keys()


def test_a_model_in_several_files(
    bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_NUMBERS_A_FILE", 9_000)
    run(pickled(bert, tmp_path / "model"), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    assert scores(tmp_path / "out") == scores(bert)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")


def test_modules_of_sentence_transformers(tmp_path: Path) -> None:
    from checkpoints import SMALL

    saved = Path(save_modules(BertConfig(**SMALL), tmp_path / "saved", dense_head("mean")))
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    for path in folder.rglob(WEIGHTS):
        torch.save(load_file(path), path.with_name("pytorch_model.bin"))
        path.unlink()
    run(folder, tmp_path / "out")
    assert scores(tmp_path / "out") == scores(saved)


def write_adapter(base: str, folder: Path, weights: str) -> None:
    """An adapter in peft's format; what peft itself saves is in test_adapters.py."""
    folder.mkdir()
    torch.manual_seed(1)
    module = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_"
    tensors = {f"{module}A.weight": torch.randn(2, 32), f"{module}B.weight": torch.randn(32, 2)}
    if weights.endswith(".bin"):
        torch.save(tensors, folder / weights)
    else:
        save_file(tensors, folder / weights)
    settings = {"r": 2, "lora_alpha": 1, "target_modules": ["query"], "task_type": "SEQ_CLS"}
    base_of = {"base_model_name_or_path": base, "peft_type": "LORA"}
    write_json(folder / "adapter_config.json", {**base_of, **settings})


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_is_merged(bert: str, tmp_path: Path, weights: str) -> None:
    folder, out = tmp_path / "adapter", tmp_path / "out"
    write_adapter(bert, folder, weights)
    assert "merged the LoRA adapter into its base" in run(folder, out)
    base, merged = load_file(Path(bert) / WEIGHTS), load_file(out / WEIGHTS)
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {"bert.encoder.layer.1.attention.self.query.weight"}
    if weights.endswith("safetensors"):
        assert scores(out) == pytest.approx(scores(folder), abs=1e-5)
    assert scores(out) != pytest.approx(scores(bert), abs=1e-3)
    assert not (out / "adapter_config.json").exists()


def test_an_adapter_of_a_pickled_base(bert: str, tmp_path: Path) -> None:
    write_adapter(bert, tmp_path / "one", "adapter_model.safetensors")
    run(tmp_path / "one", tmp_path / "expected")
    base = pickled(bert, tmp_path / "base", "module.")
    write_adapter(str(base), tmp_path / "two", "adapter_model.bin")
    run(tmp_path / "two", tmp_path / "out")
    assert scores(tmp_path / "out") == scores(tmp_path / "expected")


def test_half_precision_stays_so(bert: str, tmp_path: Path) -> None:
    base = Path(shutil.copytree(bert, tmp_path / "base"))
    halves = {name: tensor.half() for name, tensor in load_file(base / WEIGHTS).items()}
    save_file(halves, base / WEIGHTS, metadata={"format": "pt"})
    write_adapter(str(base), tmp_path / "adapter", "adapter_model.safetensors")
    run(tmp_path / "adapter", tmp_path / "out")
    assert {each.dtype for each in load_file(tmp_path / "out" / WEIGHTS).values()} == {torch.half}


def test_a_fine_tune_of_the_catalogs_models_keeps_its_recipe(tmp_path: Path) -> None:
    """Its base's name proves how it scores."""
    base = Path(shutil.copytree(GOLDEN / "gemma", tmp_path / "bge-reranker-v2-gemma"))
    folder = tmp_path / "mine"
    write_adapter(str(base), folder, "adapter_model.safetensors")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    size = load_file(base / WEIGHTS)["model.layers.0.self_attn.q_proj.weight"].shape
    parts = {f"{name}A.weight": torch.randn(2, size[1]), f"{name}B.weight": torch.randn(size[0], 2)}
    save_file(parts, folder / "adapter_model.safetensors")
    assert tensors.keys() != parts.keys()
    edit_json(folder / "adapter_config.json", target_modules=["q_proj"], task_type="CAUSAL_LM")
    printed = run(folder, tmp_path / "out")
    assert "recipe bge-reranker-v2-gemma: the catalog knows its _name_or_path" in printed
    assert scores(tmp_path / "out") == pytest.approx(scores(folder), abs=1e-5)


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("ran code of a checkpoint",)


def test_a_pickle_with_code_is_refused(
    bert: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = pickled(bert, tmp_path / "model")
    torch.save({"classifier.weight": Harmful()}, folder / "pytorch_model.bin")
    printed = run(folder, tmp_path / "out", 1)
    assert "cannot be read without running code that is in it" in printed
    assert "ran code" not in capfd.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no pickle"])
def test_a_pickle_that_is_cut_off(bert: str, tmp_path: Path, content: bytes) -> None:
    folder = pickled(bert, tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(content)
    assert "cannot be read" in run(folder, tmp_path / "out", 1)


def test_what_cannot_be_converted_is_told(bert: str, tmp_path: Path) -> None:
    folder = pickled(bert, tmp_path / "model")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert "is not empty: choose another folder" in run(folder, out, 2)
    assert (out / "mine.txt").read_text() == "kept"
    assert "there is no model folder" in run(tmp_path / "none", tmp_path / "a", 1)
    torch.save([1, 2], folder / "pytorch_model.bin")
    assert "holds no tensors by their names" in run(folder, tmp_path / "b", 1)
    parts = {"bert.encoder.layer.1.attention.self.query.lora_A.default.weight": torch.ones(2, 2)}
    torch.save(parts, folder / "pytorch_model.bin")
    assert "holds the parts of an adapter" in run(folder, tmp_path / "c", 1)
    (folder / "pytorch_model.bin").unlink()
    assert "found ['training_args.bin']" in run(folder, tmp_path / "d", 1)
    (folder / "zero_to_fp32.py").write_text("")
    assert "run `python zero_to_fp32.py" in run(folder, tmp_path / "e", 1)


def test_the_config_is_the_models_own(bert: str, tmp_path: Path) -> None:
    run(pickled(bert, tmp_path / "model"), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert written == json.loads((Path(bert) / "config.json").read_text("utf-8"))
