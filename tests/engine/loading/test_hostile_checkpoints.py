"""Checkpoints that claim more than they hold are refused before anything is allocated."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import edit_json, write_json
from paths import GOLDEN
from processes import WITH_LIBRARIES, run
from tokenizers import Tokenizer

from bge_rerank_integrations import ModelLoadError, RerankEngine

HUGE = 1_000_000_000


MODELS = ["xlmr", "gemma", "minicpm", "light", "modernbert", "distilbert"]
SIZES = ["num_hidden_layers", "vocab_size", "intermediate_size"]


def with_huge(folder: Path, model: str, name: str, request: pytest.FixtureRequest) -> str:
    """Make a copy of a checkpoint that claims a size that it does not have.

    :returns: the size's name in its config.
    """
    theirs = {"num_hidden_layers": "n_layers", "intermediate_size": "hidden_dim"}
    whole = GOLDEN / model
    if not whole.exists():
        whole = Path(request.getfixturevalue(model))
    if model == "distilbert":
        name = theirs.get(name, name)
    shutil.copytree(whole, folder)
    edit_json(folder / "config.json", **{name: HUGE})
    return name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_no_tensor_has_is_refused(
    model: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = with_huge(tmp_path / "model", model, name, request)
    with pytest.raises(ModelLoadError, match=f"config.json says {name} {HUGE}, and the weights"):
        RerankEngine(str(tmp_path / "model"), device="cpu")


REFUSES_HUGE = """
import resource, sys
from bge_rerank_integrations import ModelLoadError, RerankEngine

def load(folder):
    try:
        RerankEngine(folder, device="cpu").close()
    except ModelLoadError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

good, *huge = sys.argv[1:]
before = load(good)
print(*(load(folder) - before for folder in huge))
"""


def test_sizes_are_refused_before_anything_is_allocated(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In a process of its own: one that was larger once has grown already."""
    folders = []
    for model in MODELS:
        for name in SIZES:
            folders.append(str(tmp_path / f"{model}-{name}"))
            with_huge(Path(folders[-1]), model, name, request)
    done = run(
        REFUSES_HUGE, str(GOLDEN / "minicpm"), *folders,
        environment=os.environ | {"OMP_NUM_THREADS": "2"}, imported=WITH_LIBRARIES,
    )  # fmt: skip
    grown_mib = list(map(int, done.stdout.split()))
    assert len(grown_mib) == len(folders), done.stderr
    assert max(grown_mib) < 200


def test_a_size_in_a_part_of_the_config_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "xlmr", tmp_path / "model"))
    edit_json(folder / "config.json", text_config={"hidden_size": HUGE})
    with pytest.raises(ModelLoadError, match=f"says hidden_size {HUGE}"):
        RerankEngine(str(folder), device="cpu")


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", 3]
)
def test_weights_of_another_folder_are_refused(tmp_path: Path, name: Any) -> None:
    folder = Path(shutil.copytree(GOLDEN / "xlmr", tmp_path / "model"))
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    index = {"weight_map": {"classifier.dense.bias": name}}
    write_json(folder / "model.safetensors.index.json", index)
    with pytest.raises(ModelLoadError, match="names the file"):
        RerankEngine(str(folder), device="cpu")


def test_padding_that_a_tokenizer_was_saved_with_is_left_out(tmp_path: Path, xlmr: str) -> None:
    folder = Path(shutil.copytree(xlmr, tmp_path / "model"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    saved = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    saved["padding"]["strategy"] = {"Fixed": HUGE}
    write_json(folder / "tokenizer.json", saved)
    texts = ["a document that has more than four tokens", "another"]
    with (
        RerankEngine(str(folder), device="cpu", dtype="float32") as engine,
        RerankEngine(xlmr, device="cpu", dtype="float32") as plain,
    ):
        assert engine.score("query", texts) == plain.score("query", texts)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_checkpoint_is_neither_run_nor_asked_for(
    distilbert: str, tmp_path: Path, file: str
) -> None:
    folder = Path(shutil.copytree(distilbert, tmp_path / "model"))
    (folder / "evil.py").write_text("raise SystemExit('run')")
    code = {"AutoModelForSequenceClassification": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    edit_json(folder / file, auto_map=code)
    with RerankEngine(str(folder), device="cpu") as engine:
        assert len(engine.score("query", ["document"])) == 1
