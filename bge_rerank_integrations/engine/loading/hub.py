"""Models of the hub: downloaded once into the local cache."""

from __future__ import annotations

import os

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bge_rerank_integrations.errors import ModelLoadError
from bge_rerank_integrations.settings import BUILT_IN_MODEL, EngineConfig

_BUILT_IN_HINT = f"model={BUILT_IN_MODEL!r} is built in and needs no download"


def download(config: EngineConfig) -> str:
    """The model's folder in the local cache; top-level files only, and no pickles.

    :raises ModelLoadError: if the hub has no such model, refuses it or cannot be reached.
    """
    try:
        return snapshot_download(
            config.model,
            revision=config.revision,
            cache_dir=config.cache_folder,
            local_files_only=config.local_files_only,
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"],
            ignore_patterns=["*/*"],
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
