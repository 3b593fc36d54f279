"""A checkpoint → tokenizer and scorers, ready to run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from bge_rerank_integrations.engine.checkpoint import Checkpoint, open_checkpoint
from bge_rerank_integrations.engine.devices import (
    default_batch_tokens,
    resolve_device,
    resolve_dtype,
)
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.encoder import PACKABLE, EncoderScorer
from bge_rerank_integrations.engine.scorers.padded import PaddedScorer
from bge_rerank_integrations.engine.tokenization import PairTokenizer
from bge_rerank_integrations.errors import ModelLoadError, UnsupportedModelError
from bge_rerank_integrations.settings import EngineConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What an engine runs.

    :param tokenizer: texts of pairs → sequences.
    :param scorers: one a device.
    :param devices: where they run.
    :param dtype: precision of the weights on the first device.
    :param max_length: tokens of a pair, after the model's own limit.
    :param max_batch_tokens: tokens in one forward pass.
    """

    tokenizer: PairTokenizer
    scorers: tuple[Scorer, ...]
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    max_length: int
    max_batch_tokens: int


def load(config: EngineConfig) -> LoadedModel:
    """Load a model onto its devices.

    :raises ModelLoadError: if the files are missing, incomplete, corrupt or out of reach.
    :raises UnsupportedModelError: if they are not a reranker that this package can run.
    :raises ConfigurationError: if a device or a length does not fit this machine or model.
    """
    devices = tuple(resolve_device(name) for name in config.devices)
    checkpoint = open_checkpoint(config)
    if not checkpoint.architecture.endswith("ForSequenceClassification"):
        raise UnsupportedModelError(
            f"{config.model} is a {checkpoint.architecture} of type {checkpoint.model_type!r}; "
            "supported are …ForSequenceClassification checkpoints with one label"
        )
    max_length = _max_length(config, checkpoint)
    tokenizer = PairTokenizer(
        _load_tokenizer(checkpoint.folder),
        max_length=max_length,
        query_max_length=config.query_max_length,
        windows=config.long_documents == "window",
    )
    passage_type = tokenizer.template.passage_type
    scorers = tuple(
        _encoder_scorer(checkpoint, device, resolve_dtype(config.dtype, device), passage_type)
        for device in devices
    )
    return LoadedModel(
        tokenizer=tokenizer,
        scorers=scorers,
        devices=devices,
        dtype=resolve_dtype(config.dtype, devices[0]),
        max_length=max_length,
        max_batch_tokens=config.max_batch_tokens or default_batch_tokens(devices[0]),
    )


def _encoder_scorer(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, passage_type: int
) -> Scorer:
    labels = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True).num_labels
    if labels != 1:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} classifies into {labels} labels; a reranker has one"
        )
    model = _load_weights(AutoModelForSequenceClassification, checkpoint.folder, dtype)
    model.to(device).eval()  # type: ignore[arg-type]  # transformers wraps torch's signature
    if checkpoint.model_type in PACKABLE:
        return EncoderScorer(model, passage_type)
    logger.info("%s cannot be packed: its batches are padded", checkpoint.model_type)
    return PaddedScorer(model, passage_type)


def _load_weights(model_class: Any, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Read safetensors weights in ``dtype`` into a stock model class; nothing may be missing."""
    try:
        with _quiet_transformers():
            model, report = model_class.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"{folder.name}: the weights cannot be read: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted(map(str, report["missing_keys"] or report["mismatched_keys"]))
        raise ModelLoadError(
            f"{folder.name} is no complete {model_class.__name__} checkpoint: weights are missing "
            f"or of another shape: {', '.join(lacking[:5])}{' …' if len(lacking) > 5 else ''}"
        )
    loaded: PreTrainedModel = model
    return loaded


def _load_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's fast tokenizer, as it was saved."""
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        with _quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelLoadError(f"{folder.name}: the tokenizer cannot be read: {error}") from error


def _max_length(config: EngineConfig, checkpoint: Checkpoint) -> int:
    """The configured length, within what the model's position embeddings can count."""
    positions = checkpoint.config.get("max_position_embeddings")
    if positions is None:
        return config.max_length
    if PACKABLE.get(checkpoint.model_type):
        # fairseq's convention: the first token's position is padding_idx + 1
        positions -= checkpoint.config.get("pad_token_id", 1) + 1
    if config.max_length > positions:
        logger.warning("max_length is %d: %s reads no more tokens", positions, config.model)
    return min(config.max_length, int(positions))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
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
