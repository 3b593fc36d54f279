"""Reads safetensors: whole models into stock classes, single rows by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from bge_rerank_integrations.errors import ModelLoadError


def load_model(
    model_class: Any,
    folder: Path,
    dtype: torch.dtype | Literal["auto"],
    device: torch.device,
    **options: Any,
) -> PreTrainedModel:
    """Read weights in ``dtype`` into a stock model class; nothing may be missing.

    Tensors are read and converted one by one: half precision never holds a float32 copy of all.

    :param dtype: ``"auto"`` leaves them as they are stored.
    :param options: further arguments of ``from_pretrained``.
    :returns: the model in eval mode on ``device``.
    :raises ModelLoadError: if weights are missing, of another shape or not readable.
    """
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"{folder.name}: the weights cannot be read: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted(map(str, report["missing_keys"] or report["mismatched_keys"]))
        raise ModelLoadError(
            f"{folder.name} is no complete {model_class.__name__} checkpoint: weights are missing "
            f"or of another shape: {', '.join(lacking[:5])}{' …' if len(lacking) > 5 else ''}"
        )
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def read_row(folder: Path, names: tuple[str, ...], row: int) -> torch.Tensor:
    """One row of the first of these tensors that the checkpoint has, `(columns,)`.

    :raises ModelLoadError: if it has none of them.
    """
    for name in names:
        if (file := _file_of(folder, name)) is not None:
            with safe_open(file, framework="pt") as tensors:
                values: torch.Tensor = tensors.get_slice(name)[row : row + 1]
                return values[0]
    raise ModelLoadError(f"{folder.name} has no weights {' or '.join(names)} for its scores")


def _file_of(folder: Path, name: str) -> Path | None:
    """The file that holds a tensor, read off the index of a checkpoint in several files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        file = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name)
        return folder / file if file else None
    for candidate in sorted(folder.glob("*.safetensors")):
        with safe_open(candidate, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118  # not a mapping
                return candidate
    return None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and load reports out of the caller's terminal."""
    verbosity = transformers_logging.get_verbosity()
    had_progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_progress_bar:
            transformers_logging.enable_progress_bar()
