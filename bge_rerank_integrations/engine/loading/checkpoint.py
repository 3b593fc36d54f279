"""A model's files: built in, in a folder, or on the hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ...errors import ModelLoadError
from ...settings import BUILT_IN_MODEL, EngineConfig
from ..scorers.stored_tensors import (
    ADAPTER_WEIGHTS,
    WEIGHTS,
    StoredTensor,
    explain_pointer,
    open_tensors,
)
from .adapter import ADAPTER_CONFIG, Adapter
from .no_checkpoint import (
    BUILT_IN_HINT,
    explain_cache,
    explain_folder,
    explain_name,
    explain_weights,
)

logger = logging.getLogger(__name__)

_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.codes", ADAPTER_WEIGHTS)
# of these a model in the cache lacks none that the hub has; an index says what weights it has
_NEEDED = (
    "config.json",
    "[0-9]*/config.json",
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.*",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    ADAPTER_WEIGHTS,
)
# any of these is a tokenizer; the others beside them are read from the same folder
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_OF_TOKENIZER = frozenset({
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with ``config.json``, safetensors weights and a tokenizer.

    :param folder: where the files are.
    :param config: what ``config.json`` says, with a ``model_type`` where its class tells it.
    :param adapter: what a folder with an adapter holds.
    :param base: the model that it adapts; its files are read where the folder has none.
    """

    folder: Path
    config: dict[str, Any]
    adapter: Adapter | None = None
    base: Checkpoint | None = None

    @property
    def model_type(self) -> str:
        """transformers' name of the model family."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def architecture(self) -> str:
        """Name of the model class that was saved."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files are: an adapter without a tokenizer has its base's."""
        has_own = any(any(self.folder.glob(name)) for name in _VOCABULARIES)
        return self.folder if has_own or self.base is None else self.base.folder

    def path(self, name: str) -> Path:
        """Where a file of the checkpoint is, if it is there.

        :param name: its path in the folder.
        """
        if name in _OF_TOKENIZER:
            return self.tokenizer_folder / name
        if self.base is not None and name == "config.json" and not (self.folder / name).is_file():
            return self.base.folder / name
        return self.folder / name

    def read_json(self, name: str) -> dict[str, Any]:
        """What a file says; nothing if it is not there.

        :param name: its path in the folder.
        :raises ModelLoadError: naming the file, if it is no JSON object.
        """
        path = self.path(name)
        return read_json(path, dict) if path.is_file() else {}

    def open_tensors(self) -> Mapping[str, StoredTensor]:
        """The weights' tensors by their names, merged with those of an adapter.

        :raises ModelLoadError: if they are missing, not readable or in another format.
        """
        if self.adapter is None or self.base is None:
            return open_tensors(self.folder, self.config.get("transformers_weights"))
        return self.adapter.merge(self.base.open_tensors())

    def require_safetensors(self, module: str = "") -> None:
        """Check that a module's weights are there, in the one format that is read.

        :param module: its folder within the checkpoint's.
        :raises ModelLoadError: if they are missing, or in another format.
        """
        if self.base is not None and not module:
            self.base.require_safetensors()
        elif why := explain_weights(self.folder / module):
            raise ModelLoadError(f"{self.folder.name}{'/' * bool(module)}{module}: {why}")


Json = TypeVar("Json", dict[str, Any], list[Any])


def read_json(path: Path, kind: type[Json]) -> Json:
    """A JSON file of the kind that is expected.

    :raises ModelLoadError: naming the file, if it is missing, no JSON or of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ModelLoadError(f"there is no {path.name} in {path.parent}") from error
    except ValueError as error:
        why = explain_pointer(path) or f"is not readable: {error}"
        raise ModelLoadError(f"{path} {why}") from error
    if not isinstance(content, kind):
        raise ModelLoadError(f"{path} is not readable: it holds no JSON {kind.__name__}")
    return content


def open_checkpoint(
    config: EngineConfig, *, with_weights: bool = True, adapter: Adapter | None = None
) -> Checkpoint:
    """Find a model's files: built in, in a folder, or on the hub (downloaded once).

    :param with_weights: whether the weights are needed too.
    :param adapter: the one in the folder, if it has been read already.
    :raises ModelLoadError: if they are missing, incomplete or out of reach.
    """
    folder = _find_folder(config, with_weights)
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = adapter or Adapter.open(folder, read_json(folder / ADAPTER_CONFIG, dict))
        checkpoint = _open_adapter(adapter, config, with_weights)
    else:
        if not (folder / "config.json").is_file() and (why := explain_folder(folder)):
            raise ModelLoadError(why)
        checkpoint = Checkpoint(folder, _read_config(folder))
    if with_weights:
        checkpoint.require_safetensors()
    return checkpoint


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json", dict)
    # jina-reranker-v2 names no type, but the class of its config
    if "XLMRobertaFlashConfig" in str(config.get("auto_map")):
        config["model_type"] = "xlm-roberta-flash"
    return config


def _open_adapter(adapter: Adapter, config: EngineConfig, with_weights: bool) -> Checkpoint:
    """A folder with an adapter, and its base: beside it, as transformers has it, or by its name.

    :raises ModelLoadError: if there is no base, or it is an adapter too.
    """
    folder = adapter.folder
    has_config = (folder / "config.json").is_file()
    if has_config and explain_weights(folder) is None:
        logger.info("%s: the weights beside the LoRA adapter are its base", folder.name)
        base = Checkpoint(folder, _read_config(folder))
    else:
        base = _open_base(adapter, config, with_weights)
    if has_config:
        return Checkpoint(folder, _read_config(folder), adapter, base)
    return Checkpoint(folder, _adapted_config(base.config, adapter), adapter, base)


def _open_base(adapter: Adapter, config: EngineConfig, with_weights: bool) -> Checkpoint:
    name, folder = adapter.base, adapter.folder
    if name is None:
        raise ModelLoadError(
            f"{folder.name} is a LoRA adapter that names no base: put the base's id or folder "
            f"into {ADAPTER_CONFIG}, as base_model_name_or_path"
        )
    beside = folder / name
    if not Path(name).expanduser().is_dir() and beside.is_dir():
        name = str(beside)
    if (
        Path(name).expanduser().resolve() == folder.resolve()
        or (Path(name).expanduser() / ADAPTER_CONFIG).is_file()
    ):
        raise ModelLoadError(
            f"{folder.name} is a LoRA adapter of {name!r}, which is an adapter too: `bge-rerank "
            "convert` makes a whole model of that one"
        )
    revision = adapter.config.get("revision")
    try:
        return open_checkpoint(
            replace(config, model=name, revision=revision), with_weights=with_weights
        )
    except ModelLoadError as error:
        raise ModelLoadError(
            f"{folder.name} is a LoRA adapter, and its base {name!r} cannot be opened: {error}. "
            f"base_model_name_or_path in {ADAPTER_CONFIG} says where the base is"
        ) from error


def _adapted_config(config: Mapping[str, Any], adapter: Adapter) -> dict[str, Any]:
    """The base's config, with the class and the labels that the adapter was trained as."""
    changes: dict[str, Any] = {}
    mapping = adapter.config.get("auto_mapping") or {}
    architecture = str((config.get("architectures") or ["unknown"])[0])
    if adapter.config.get("task_type") == "SEQ_CLS":
        if not architecture.endswith("ForSequenceClassification"):
            # transformers' names take seconds to import
            from transformers.models.auto.modeling_auto import (
                MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
            )

            architecture = CLASSIFIERS.get(str(config.get("model_type")), architecture)
            changes["architectures"] = [architecture]
    elif mapping.get("base_model_class"):
        changes["architectures"] = [mapping["base_model_class"]]
    labels = adapter.labels()
    if labels is not None:
        names = {str(number): f"LABEL_{number}" for number in range(labels)}
        changes.update(id2label=names, label2id={name: int(key) for key, name in names.items()})
    if (rows := adapter.vocabulary()) is not None:
        changes["vocab_size"] = rows
    return {**config, **changes}


def _find_folder(config: EngineConfig, with_weights: bool) -> Path:
    if config.model == BUILT_IN_MODEL:
        return Path(str(files("bge_rerank_integrations") / "models" / BUILT_IN_MODEL))
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        return folder
    if why := explain_name(config.model):
        raise ModelLoadError(why)
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

    def download(*patterns: str) -> Path:
        folder = snapshot_download(
            config.model,
            revision=config.revision,
            cache_dir=config.cache_folder,
            local_files_only=config.local_files_only,
            allow_patterns=list(patterns),
            # an asterisk stands for slashes too
            ignore_patterns=["[!0-9]*/*", "*/*/*"],
        )
        return Path(folder)

    try:
        try:
            return download(*_FILES, *(["*.safetensors"] if with_weights else []))
        except LocalEntryNotFoundError as error:
            # the hub lists files that the cache lacks, and a model need not have all of them
            if not hasattr(error, "snapshot_path"):
                raise
            return download(*_NEEDED, *([WEIGHTS] if with_weights else []))
    except HFValidationError as error:
        raise ModelLoadError(
            f"{config.model!r} is neither a folder nor a hub id like 'BAAI/bge-reranker-v2-m3'; "
            + BUILT_IN_HINT
        ) from error
    except GatedRepoError as error:
        raise ModelLoadError(f"{config.model}: the hub wants you to ask for access") from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(f"{config.model} has no revision {config.revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(f"the hub has no model {config.model!r}; {BUILT_IN_HINT}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ModelLoadError(explain_cache(config, error)) from error
