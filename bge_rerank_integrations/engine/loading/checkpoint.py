"""A model's files: built in, in a folder, or on the hub."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from bge_rerank_integrations.errors import ModelLoadError
from bge_rerank_integrations.settings import BUILT_IN_MODEL, EngineConfig

_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_BUILT_IN_HINT = f"model={BUILT_IN_MODEL!r} is built in and needs no download"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with ``config.json``, safetensors weights and a tokenizer.

    :param folder: where the files are.
    :param config: what ``config.json`` says, with a ``model_type`` where its class tells it.
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

    def read_json(self, name: str) -> dict[str, Any]:
        """What a file says; nothing if it is not there.

        :param name: its path in the folder.
        :raises ModelLoadError: naming the file, if it is no JSON object.
        """
        path = self.folder / name
        return read_json(path, dict) if path.is_file() else {}

    def require_safetensors(self, module: str = "") -> None:
        """Check that a module's weights are there, in the one format that is read.

        :param module: its folder within the checkpoint's.
        :raises ModelLoadError: if they are missing, or in another format.
        """
        folder = self.folder / module
        if not any(folder.glob("*.safetensors")):
            found = sorted(path.name for path in folder.glob("*.bin")) or "no weights"
            raise ModelLoadError(
                f"{self.folder.name}{'/' * bool(module)}{module}: weights must be safetensors, "
                f"which cannot run code when they are read; found {found}. Convert them with "
                "transformers: AutoModel….from_pretrained(…).save_pretrained(…)"
            )


Json = TypeVar("Json", dict[str, Any], list[Any])


def read_json(path: Path, kind: type[Json]) -> Json:
    """A JSON file of the kind that is expected.

    :raises ModelLoadError: naming the file, if it is missing, no JSON or of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelLoadError(f"there is no {path.name} in {path.parent}") from error
    except ValueError as error:
        raise ModelLoadError(f"{path} is not readable: {error}") from error
    if not isinstance(content, kind):
        raise ModelLoadError(f"{path} is not readable: it holds no JSON {kind.__name__}")
    return content


def open_checkpoint(config: EngineConfig, *, with_weights: bool = True) -> Checkpoint:
    """Find a model's files: built in, in a folder, or on the hub (downloaded once).

    :param with_weights: whether the weights are needed too.
    :raises ModelLoadError: if they are missing, incomplete or out of reach.
    """
    folder = _find_folder(config, with_weights)
    config_file = read_json(folder / "config.json", dict)
    # jina-reranker-v2 names no type, but the class of its config
    if "XLMRobertaFlashConfig" in str(config_file.get("auto_map")):
        config_file["model_type"] = "xlm-roberta-flash"
    checkpoint = Checkpoint(folder, config_file)
    if with_weights:
        checkpoint.require_safetensors()
    return checkpoint


def _find_folder(config: EngineConfig, with_weights: bool) -> Path:
    if config.model == BUILT_IN_MODEL:
        return Path(str(files("bge_rerank_integrations") / "models" / BUILT_IN_MODEL))
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or config.model.startswith((".", "~")) or config.model.count("/") > 1:
        raise ModelLoadError(f"there is no model folder {config.model!r}")
    return _download(config, with_weights)


def _download(config: EngineConfig, with_weights: bool) -> Path:
    """The model's folder in the local cache, without pickles.

    Of folders within it, only those of sentence-transformers' modules (``1_Pooling``, …).

    :raises ModelLoadError: if the hub has no such model, refuses it or cannot be reached.
    """
    # the hub's client takes a moment to import, and a local model needs none of it
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            config.model,
            revision=config.revision,
            cache_dir=config.cache_folder,
            local_files_only=config.local_files_only,
            # an asterisk stands for slashes too
            allow_patterns=[*_FILES, *(["*.safetensors"] if with_weights else [])],
            ignore_patterns=["[!0-9]*/*", "*/*/*"],
        )
    except HFValidationError as error:
        raise ModelLoadError(
            f"{config.model!r} is neither a folder nor a hub id like 'BAAI/bge-reranker-v2-m3'; "
            + _BUILT_IN_HINT
        ) from error
    except GatedRepoError as error:
        raise ModelLoadError(f"{config.model}: the hub wants you to ask for access") from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(f"{config.model} has no revision {config.revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(f"the hub has no model {config.model!r}; {_BUILT_IN_HINT}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        offline = config.local_files_only or os.environ.get("HF_HUB_OFFLINE") == "1"
        why = "downloads are switched off" if offline else "the model hub cannot be reached"
        raise ModelLoadError(
            f"{config.model} is not in the local cache and {why}; {_BUILT_IN_HINT}"
        ) from error
    return Path(folder)
