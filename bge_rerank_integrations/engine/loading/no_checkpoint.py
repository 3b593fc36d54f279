"""What lies where a checkpoint was expected, and what to do about it, for messages."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...settings import BUILT_IN_MODEL, EngineConfig

BUILT_IN_HINT = f"model={BUILT_IN_MODEL!r} is built in and needs no download"
CONVERT = "`bge-rerank convert FOLDER OUT` makes safetensors of it"
PICKLES = (".bin", ".pt", ".pth")
# weights of TensorFlow and Flax
_OTHERS = (".h5", ".msgpack")
_HUB = re.compile(r"https?://(www\.)?(huggingface\.co|hf\.co|hf-mirror\.com)/(?P<id>[^/]+/[^/?#]+)")
_CACHED = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


def explain_name(model: str) -> str | None:
    """What a name is that is no folder's, and cannot be a hub id; None if it may be one.

    :param model: as the caller gave it.
    """
    path = Path(model).expanduser()
    if path.is_file():
        kind = {".gguf": "a GGUF file", ".safetensors": "a file of weights"}.get(
            path.suffix, "a file"
        )
        advice = _no_weights([path.name]) if path.suffix == ".gguf" else "give the folder it is in"
        return f"{model!r} is {kind}, and a model is a folder: {advice}"
    if found := _HUB.match(model):
        return f"{model!r} is a page of the hub; the model's id is {found['id']!r}"
    if "://" in model:
        return f"{model!r} is an address, and a model is a folder or a hub id"
    if os.name != "nt" and "\\" in model:
        return (
            f"there is no model folder {model!r}: it is a path of Windows, and this is not Windows"
        )
    if re.fullmatch(r"[^/]+/[^/]+/", model):
        return (
            f"there is no model folder {model!r}; without the slash at its end, "
            f"{model.rstrip('/')!r} is a hub id"
        )
    name, at, revision = model.partition("@")
    if at and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return (
            f"{model!r} is no hub id: a revision is a setting of its own, {name!r} with "
            f"revision={revision!r}"
        )
    if found := _CACHED.fullmatch(model):
        return (
            f"there is no model folder {model!r}; the hub id is {found['owner']}/{found['name']!s}"
        )
    return None


def explain_cache(config: EngineConfig, error: Exception) -> str:
    """Why a model cannot be had from the local cache, and what to do.

    :param error: what the hub's client raised.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    offline = config.local_files_only or os.environ.get("HF_HUB_OFFLINE") == "1"
    why = "downloads are switched off" if offline else "the model hub cannot be reached"
    cache = Path(config.cache_folder or HF_HUB_CACHE).expanduser()
    snapshots = cache / f"models--{config.model.replace('/', '--')}" / "snapshots"
    there = sorted(path.name for path in snapshots.glob("*") if path.is_dir())
    if hasattr(error, "snapshot_path"):
        return (
            f"{config.model} is incomplete in the local cache: its download was interrupted, and "
            f"{why}: {error}"
        )
    if there:
        asked = config.revision or "main"
        return (
            f"{config.model} is in the local cache, but its revision {asked!r} is not, and {why}; "
            f"there is {', '.join(there)}"
        )
    return f"{config.model} is not in the local cache and {why}; {BUILT_IN_HINT}"


def explain_folder(folder: Path) -> str | None:
    """What a folder without a ``config.json`` is; None if nothing is known about it."""
    snapshots = [path for path in folder.glob("snapshots/*") if (path / "config.json").exists()]
    if snapshots or _CACHED.fullmatch(folder.name):
        found = _CACHED.fullmatch(folder.name)
        hub_id = f" (or the hub id {found['owner']}/{found['name']})" if found else ""
        newest = max(snapshots, key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            return f"{folder} is a model of the hub's cache that {_INTERRUPTED}"
        return f"{folder} is a folder of the hub's cache; did you mean {newest}{hub_id}?"
    checkpoints = {
        int(path.name.rpartition("-")[2]): path
        for path in folder.glob("checkpoint-*")
        if path.name.rpartition("-")[2].isdigit() and path.is_dir()
    }
    if checkpoints:
        return f"there is no config.json in {folder}; did you mean {checkpoints[max(checkpoints)]}?"
    if (what := _known(folder)) is not None:
        return f"{folder}: {what}"
    inner = [path for path in sorted(folder.iterdir()) if (path / "config.json").is_file()]
    if len(inner) == 1:
        return f"there is no config.json in {folder}; did you mean {inner[0]}?"
    names = [path.name for path in folder.iterdir()]
    if "adapter_model.safetensors" in names or "adapter_model.bin" in names:
        return (
            f"{folder} has the weights of an adapter, and no adapter_config.json: copy it there too"
        )
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return f"there is no config.json in {folder}: copy it from the base model"
    return None


def explain_weights(folder: Path) -> str | None:
    """Why a folder has no weights that can be read; None if it has some."""
    files = [path for path in folder.glob("*.safetensors") if not path.name.startswith(".")]
    if any(path.name != "adapter_model.safetensors" for path in files):
        return None
    if (folder / "model.safetensors.index.json").is_file():
        missing = "the files that model.safetensors.index.json names are missing"
        return missing + _interrupted(folder)
    if (what := _known(folder)) is not None:
        return what
    named = sorted(path.name for path in folder.iterdir() if path.suffix in (*PICKLES, *_OTHERS))
    weights = [name for name in named if name != "training_args.bin"] or named
    can_convert = any(name.endswith(PICKLES) for name in weights)
    return (
        "weights must be safetensors, which cannot run code when they are read; found "
        f"{weights or 'no weights'}" + (f". {CONVERT}" if can_convert else _interrupted(folder))
    )


_INTERRUPTED = (
    "holds no weights: the download was interrupted, or only the config was asked for; load it "
    "once with downloads switched on"
)


def _interrupted(folder: Path) -> str:
    """What is said of a folder in the hub's cache."""
    if folder.parent.name != "snapshots":
        return ""
    return f"; it is in the hub's cache, which {_INTERRUPTED}"


def _known(folder: Path) -> str | None:
    """What a folder without readable weights holds instead of them."""
    names = sorted(path.name for path in folder.iterdir())
    if "zero_to_fp32.py" in names or any(re.fullmatch(r"global_step\d+", name) for name in names):
        return (
            "the weights are still in the parts that DeepSpeed's ZeRO saved; run "
            "`python zero_to_fp32.py . OUT --safe_serialization` in it"
        )
    return _no_weights(names) if any(name.endswith(".gguf") for name in names) else _onnx(folder)


def _no_weights(names: list[str]) -> str:
    gguf = next(name for name in names if name.endswith(".gguf"))
    return f"{gguf} is GGUF, for llama.cpp; take the model that it was made of, in safetensors"


def _onnx(folder: Path) -> str | None:
    if any(folder.glob("*.bin")) or not any([*folder.glob("*.onnx"), *folder.glob("*/*.onnx")]):
        return None
    return "it has ONNX weights only; take the model that they were exported from, in safetensors"
