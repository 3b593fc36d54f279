"""Other people's folders → safetensors: pickles, the prefixes of trainers' wrappers, adapters."""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...errors import ConfigurationError, ModelLoadError, UnsupportedModelError
from ...settings import EngineConfig
from ..scorers.stored_tensors import INDEX, WEIGHTS, StoredTensor
from .adapter import ADAPTER_CONFIG, Adapter, ChangedTensor
from .checkpoint import Checkpoint, open_checkpoint, read_json
from .no_checkpoint import PICKLES, explain_weights
from .proofs import read_recipe

# what a model needs beside its weights; other files are a training's
_COPIED = (".json", ".model", ".txt", ".jinja", ".codes", ".md")
_NOT_COPIED = re.compile(r"adapter_config\.json|.*\.index\.json|trainer_state\.json|requirements.*")
_TRAINING = re.compile(r"(training_args|optimizer|scheduler|rng_state|scaler|random_states).*")
# names that torch puts into others, and those before them
_WITHIN = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_BEFORE = ("module.", "base_model.model.")
# FlagEmbedding's trainers hold the model as `model`; then one of these comes next
_IN_MODEL = re.compile(
    r"(model|bert|roberta|deberta|electra|albert|distilbert|mpnet|transformer|classifier|score"
    r"|lm_head|head)\."
)
_NUMBERS_A_FILE = 1_250_000_000


class _Loaded:
    """A tensor that is in memory already."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def get_dtype(self) -> str:
        return str(self._tensor.dtype)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._tensor[index]


def convert(folder: Path, out: Path) -> Iterator[str]:
    """Write a folder's model in safetensors, merged with an adapter, under transformers' names.

    :param folder: with ``config.json``, or with an adapter; its pickles are read by torch with
        ``weights_only``, which runs no code of theirs.
    :param out: a folder that is empty or not there.
    :returns: what was done, line by line, while it is done.
    :raises ConfigurationError: if ``out`` holds something.
    :raises ModelLoadError: if there are no weights, or not those of one model.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} is not empty: choose another folder")
    if not folder.is_dir():
        raise ModelLoadError(f"there is no model folder {str(folder)!r}")
    notes: list[str] = []
    checkpoint, tensors = _read(folder, notes)
    yield from notes
    if parts := [name for name in tensors if ".lora_" in name]:
        raise ModelLoadError(
            f"{folder.name} holds the parts of an adapter, {parts[0]} among them, and no "
            f"{ADAPTER_CONFIG} that says how to merge them"
        )
    out.mkdir(parents=True, exist_ok=True)
    yield _save(tensors, out)
    for source in dict.fromkeys((checkpoint.tokenizer_folder, folder)):
        _copy_files(source, out)
    for module in sorted(folder.glob("[0-9]*_*")):
        (out / module.name).mkdir()
        _copy_files(module, out / module.name)
        if any([*module.glob("*.safetensors"), *module.glob("*.bin")]):
            _save(_tensors(module, notes), out / module.name)
    config = dict(checkpoint.config)
    if checkpoint.adapter is not None:
        # the catalog knows a fine-tune's recipe by the name of its base
        config["_name_or_path"] = checkpoint.adapter.base
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    yield f"copied {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}"
    try:
        recipe = read_recipe(EngineConfig(str(out)), open_checkpoint(EngineConfig(str(out))))
        yield f"it is scored by the recipe {recipe.name}: {recipe.proof}"
    except UnsupportedModelError as error:
        yield f"it needs recipe=…: {error}"


def _read(folder: Path, notes: list[str]) -> tuple[Checkpoint, Mapping[str, StoredTensor]]:
    """The model's files and tensors, those of an adapter merged into its base's."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return Checkpoint(folder, read_json(folder / "config.json", dict)), _tensors(folder, notes)
    pickled = folder / "adapter_model.bin"
    adapter = None
    if pickled.is_file() and not (folder / "adapter_model.safetensors").is_file():
        loaded = _load_pickles([pickled], notes)
        names = {name: name[name.find("base_model.model.") :] for name in loaded}
        tensors = {names[name]: tensor for name, tensor in loaded.items()}
        adapter = Adapter(folder, read_json(path, dict), tensors)
    config = EngineConfig(str(folder))
    checkpoint = open_checkpoint(config, with_weights=False, adapter=adapter)
    assert checkpoint.adapter is not None
    assert checkpoint.base is not None
    base = checkpoint.base
    if not any(base.folder.glob("*.bin")) and explain_weights(base.folder):
        # on the hub, or nowhere
        base = open_checkpoint(replace(config, model=str(checkpoint.adapter.base)))
    stored = _tensors(base.folder, notes)
    merged = checkpoint.adapter.merge(stored)
    for name in merged.keys() & stored.keys():
        if merged[name] is not stored[name]:
            # in the precision that the base is stored in, as peft merges
            merged[name] = ChangedTensor(merged[name], methodcaller("to", stored[name][:0].dtype))
    notes.append(f"merged the LoRA adapter into its base, {base.folder}")
    return checkpoint, merged


def _tensors(folder: Path, notes: list[str]) -> dict[str, StoredTensor]:
    """A folder's tensors under transformers' names, from safetensors or else from pickles."""
    why = explain_weights(folder)
    if why is None:
        tensors: Mapping[str, StoredTensor] = Checkpoint(folder, {}).open_tensors()
        notes.append(f"read {len(tensors)} tensors in safetensors")
    else:
        tensors = _load_pickles(_pickles(folder, why), notes)
    names = {name: name for name in tensors}
    while removed := _wrapper(names.values()):
        names = {name: re.sub(removed, "", now) for name, now in names.items()}
        notes.append(f"removed {removed.replace('^', '').replace(chr(92), '')!r} from the names")
    return {names[name]: tensor for name, tensor in tensors.items()}


def _wrapper(names: Iterable[str]) -> str | None:
    """A pattern of what a trainer's wrapper has put into names; None if nothing is left of it."""
    names = list(names)
    if found := next(filter(None, map(_WITHIN.search, names)), None):
        return re.escape(found[0])
    for prefix in (*_BEFORE, "model."):
        if all(name.startswith(prefix) for name in names) and (
            prefix != "model." or any(_IN_MODEL.match(name.removeprefix(prefix)) for name in names)
        ):
            return "^" + re.escape(prefix)
    return None


def _pickles(folder: Path, why: str) -> list[Path]:
    """The files that torch saved a model in.

    :param why: there are no safetensors, for the message.
    """
    index = folder / "pytorch_model.bin.index.json"
    if (whole := folder / "pytorch_model.bin").is_file():
        return [whole]
    if index.is_file():
        found = sorted({folder / name for name in read_json(index, dict)["weight_map"].values()})
    else:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix in PICKLES and not _TRAINING.fullmatch(path.name)
        ]
    missing = [path.name for path in found if path.parent != folder or not path.is_file()]
    if missing or not found or (len(found) > 1 and not index.is_file()):
        named = f"{missing[0]} is missing" if missing else why
        raise ModelLoadError(f"{folder.name}: {named}")
    return found


def _load_pickles(paths: Iterable[Path], notes: list[str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        try:
            # files of torch before 1.6 are no archives, and cannot be mapped
            is_archive = zipfile.is_zipfile(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ModelLoadError(
                f"{path} cannot be read without running code that is in it, or is cut off: "
                f"{error!s:.200}"
            ) from error
        for key in ("state_dict", "model_state_dict", "model", "module"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        found = content.items() if isinstance(content, dict) else ()
        kept = {name: _Loaded(each) for name, each in found if isinstance(each, torch.Tensor)}
        if not kept:
            raise ModelLoadError(f"{path} holds no tensors by their names")
        notes.append(f"read {len(kept)} tensors in {path.name}")
        tensors.update(kept)
    return tensors


def _save(tensors: Mapping[str, StoredTensor], out: Path) -> str:
    """Write the tensors, in several files if they are many; what was written."""
    files: list[list[str]] = [[]]
    numbers = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.get_shape())
        if files[-1] and numbers + size > _NUMBERS_A_FILE:
            files.append([])
            numbers = 0
        files[-1].append(name)
        numbers += size
    assigned, total = {}, 0
    for number, names in enumerate(files, 1):
        file = WEIGHTS if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        # copies: tensors of one file share its memory, and tied ones each other's
        kept = {name: tensors[name][...].clone().contiguous() for name in names}
        save_file(kept, out / file, metadata={"format": "pt"})
        assigned.update(dict.fromkeys(names, file))
        total += sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": assigned}
        (out / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return f"wrote {len(tensors)} tensors ({total / 1e9:.2f} GB) to {out}"


def _copy_files(source: Path, out: Path) -> None:
    for path in sorted(source.iterdir()):
        wanted = path.suffix in _COPIED and not _NOT_COPIED.fullmatch(path.name)
        if path.is_file() and wanted and not path.name.startswith("."):
            shutil.copyfile(path, out / path.name)
