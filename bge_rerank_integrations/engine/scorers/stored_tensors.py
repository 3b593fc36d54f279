"""Which files hold a checkpoint's tensors: decided as transformers does, and mapped, not read."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ...errors import ModelLoadError

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_FILE_NAME = re.compile(r"[^/\\]+\.safetensors")
# written by transformers' distributed saving, which stores parts of tensors
_PARTS_OF_TENSORS = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


class StoredTensor(Protocol):
    """A tensor in a file, read when it is indexed: safetensors' slices, and their like."""

    def get_shape(self) -> list[int]:
        """Its sizes, without reading it."""

    def get_dtype(self) -> str:
        """Its precision, as safetensors calls it."""

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The tensor (index ``...``), or a part of it; its memory is the mapped file."""


def open_tensors(folder: Path, named: str | None = None) -> dict[str, StoredTensor]:
    """The tensors of a folder's safetensors files, by their names; an adapter's are left out.

    Which files these are is decided as transformers does: ``model.safetensors``; else the index,
    where each tensor is read from the file that the index says; else whatever other files there
    are, as long as no two of them hold a tensor of the same name.

    :param named: a file that ``config.json`` names (``transformers_weights``).
    :raises ModelLoadError: if a file is missing, cut off or no safetensors, or if two files hold
        the same tensor.
    """
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    # macOS puts ._model.safetensors beside a file that it copies to a foreign disk
    names = [name for name in found if not name.startswith(".") and name != ADAPTER_WEIGHTS]
    parts = [name for name in names if _PARTS_OF_TENSORS.fullmatch(name)]
    if parts:
        raise ModelLoadError(
            f"{folder.name}: {parts[0]} holds parts of tensors, as distributed training saves "
            "them; save the model with save_pretrained() on one process"
        )
    if named is not None:
        return _read_named(folder, named)
    index = folder / INDEX
    if WEIGHTS in names:
        if index.is_file() and set(_assigned_files(index).values()) & set(names):
            logger.warning(
                "%s: %s is read, as transformers does, and the files that %s names are ignored",
                folder.name,
                WEIGHTS,
                INDEX,
            )
        return read_tensors([folder / WEIGHTS])
    if index.is_file():
        return _read_index(index)
    return read_tensors([folder / name for name in names])


def _read_named(folder: Path, named: str) -> dict[str, StoredTensor]:
    """The tensors of the file, or of the index, that ``config.json`` names."""
    file = str(named).removesuffix(".index.json")
    if not _FILE_NAME.fullmatch(file) or not (folder / named).is_file():
        raise ModelLoadError(
            f"{folder.name}: config.json names the weights {named!r:.80}, which are not there"
        )
    return read_tensors([folder / named]) if file == named else _read_index(folder / named)


def _assigned_files(index: Path) -> dict[str, str]:
    """The file that an index assigns each tensor to.

    :raises ModelLoadError: if it is not readable, or names a file of another folder.
    """
    folder = index.parent
    try:
        assigned: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = list(assigned.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(
            f"{folder.name}: {index.name} is not readable: {error!r:.200}"
        ) from error
    for name in names:
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise ModelLoadError(f"{folder.name}: {index.name} names the file {name!r:.80}")
    return {_plain(name): file for name, file in assigned.items()}


def _read_index(index: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint in several files, each from the file that the index assigns."""
    folder, assigned = index.parent, _assigned_files(index)
    files = sorted(set(assigned.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ModelLoadError(
            f"{folder.name} is incomplete: {len(missing)} of the {len(files)} files that "
            f"{index.name} names are missing, {missing[0]} among them"
        )
    tensors = read_tensors([folder / name for name in files], assigned)
    absent = sorted(assigned.keys() - tensors.keys())
    if absent:
        raise ModelLoadError(
            f"{folder.name} is incomplete: {index.name} says that {absent[0]} is in "
            f"{assigned[absent[0]]}, and it is not"
        )
    return tensors


def _plain(name: str) -> str:
    """A tensor's name in transformers' models; checkpoints from TensorFlow have gamma and beta."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


def read_tensors(
    paths: Sequence[Path], assigned: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All tensors of these files by their names, none of which may be in two of them.

    :param assigned: the file to take a tensor from, by its name.
    """
    tensors: dict[str, Any] = {}
    file_of: dict[str, str] = {}
    for path in paths:
        try:
            file: Any = safe_open(path, framework="pt")
            slices = {_plain(name): file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            why = f"the weights cannot be read: {path.name}: {error}"
            if pointer := explain_pointer(path):
                why = f"{path.name} {pointer}"
            raise ModelLoadError(f"{path.parent.name}: {why}") from error
        for name, tensor in slices.items():
            if assigned is not None and assigned.get(name, path.name) != path.name:
                continue
            if name in file_of:
                raise ModelLoadError(
                    f"{path.parent.name}: {file_of[name]} and {path.name} both hold {name}; keep "
                    "the files of one checkpoint, and move the others elsewhere"
                )
            file_of[name] = path.name
            tensors[name] = tensor
    return tensors


def explain_pointer(path: Path) -> str | None:
    """What a file is that only points to its content; None if it is something else."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        is_pointer = file.read(64).startswith(b"version https://git-lfs")
    return "is a git-lfs pointer, and not the file itself: run git lfs pull" if is_pointer else None
