"""Where a model's files are, and what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bge_rerank_integrations.errors import ModelLoadError
from bge_rerank_integrations.settings import BUILT_IN_MODEL, EngineConfig


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with ``config.json``, safetensors weights and a tokenizer.

    :param folder: where the files are.
    :param config: what ``config.json`` says.
    """

    folder: Path
    config: dict[str, Any]

    @property
    def model_type(self) -> str:
        """transformers' name of the model family."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def architecture(self) -> str:
        """Name of the model class that was saved."""
        return str((self.config.get("architectures") or ["unknown"])[0])


def open_checkpoint(config: EngineConfig) -> Checkpoint:
    """Find a model's files: built in, in a folder, or on the hub (downloaded once).

    :raises ModelLoadError: if they are missing, incomplete or out of reach.
    """
    folder = _find_folder(config)
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelLoadError(f"{config.model}: there is no config.json in {folder}") from error
    except ValueError as error:
        raise ModelLoadError(f"{config.model}: config.json is not readable: {error}") from error
    if not any(folder.glob("*.safetensors")):
        found = sorted(path.name for path in folder.glob("*.bin")) or "no weights"
        raise ModelLoadError(
            f"{config.model}: weights must be safetensors, which cannot run code when they are "
            f"read; found {found}. Convert them with transformers: "
            "AutoModel….from_pretrained(…).save_pretrained(…)"
        )
    return Checkpoint(folder, described)


def _find_folder(config: EngineConfig) -> Path:
    if config.model == BUILT_IN_MODEL:
        return Path(str(files("bge_rerank_integrations") / "models" / BUILT_IN_MODEL))
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or config.model.startswith((".", "~")) or config.model.count("/") > 1:
        raise ModelLoadError(f"there is no model folder {config.model!r}")
    # a moment's import that a local model does without
    from bge_rerank_integrations.engine.loading.hub import download

    return Path(download(config))
