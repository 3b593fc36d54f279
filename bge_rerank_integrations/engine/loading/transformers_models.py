"""transformers' own model classes, and its conversion of older tokenizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.utils import logging as transformers_logging

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.families import LoadRequest
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.padded import PaddedScorer
from bge_rerank_integrations.engine.scorers.weights import WeightFiles
from bge_rerank_integrations.errors import ModelLoadError, UnsupportedModelError

logger = logging.getLogger(__name__)


def make_padded(request: LoadRequest) -> Scorer:
    """Any ``*ForSequenceClassification`` of transformers, or any body with modules behind it.

    :raises UnsupportedModelError: for a model that only code of its own can run.
    """
    checkpoint, head = request.checkpoint, request.module_head()
    if checkpoint.model_type not in CONFIG_MAPPING:
        own = f" but in the checkpoint's own code ({checkpoint.config['auto_map']})"
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is of type {checkpoint.model_type!r}, which transformers "
            f"does not have{own if checkpoint.config.get('auto_map') else ''}; code of a "
            "checkpoint is never run"
        )
    model = load_model(AutoModelForSequenceClassification if head is None else AutoModel, request)
    if isinstance(model, GenericForSequenceClassification) and model.config.pad_token_id is None:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name}: config.json has no pad_token_id, by which a "
            f"{type(model).__name__} finds the last token of each text in a batch"
        )
    logger.info("%s cannot be packed: its batches are padded", checkpoint.model_type)
    return PaddedScorer(model, request.passage_type, head)


def load_model(
    model_class: Any, request: LoadRequest, config: Any = None, **options: Any
) -> PreTrainedModel:
    """Read weights into one of transformers' model classes; nothing may be missing.

    Tensors are read and converted one by one: half precision never holds a float32 copy of all.

    :param config: of the model; None: the checkpoint's, and the class that is for it.
    :param options: further arguments of ``from_pretrained``.
    :returns: the model in eval mode on the request's device.
    :raises ModelLoadError: if weights are missing, of another shape or not readable.
    """
    folder = request.checkpoint.folder
    try:
        with _quiet_transformers():
            if config is None:
                config, model_class = _config_and_class(request.checkpoint, model_class)
            request.files.check_numbers()
            _check_count(model_class, config, request.files)
            # tensors are given, and no folder: which files they are in, what an adapter changes and
            # whether peft is installed is not decided a second time
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(request.files.tensors),
                dtype=request.dtype,
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
    loaded: PreTrainedModel = model.to(request.device).eval()
    return loaded


def _config_and_class(checkpoint: Checkpoint, auto: Any) -> tuple[Any, Any]:
    """transformers' config of a checkpoint, and the class that one of its auto classes has for it.

    :raises ValueError: if there is no such class.
    """
    folder = checkpoint.path("config.json").parent
    config = AutoConfig.from_pretrained(
        folder,
        local_files_only=True,
        # by default transformers asks on the terminal
        trust_remote_code=False,
    )
    if checkpoint.adapter is not None and (labels := checkpoint.config.get("id2label")):
        config.num_labels = len(labels)
        config.vocab_size = checkpoint.config.get("vocab_size", config.vocab_size)
    try:
        found = auto._model_mapping[type(config)]
    except KeyError as error:
        raise ValueError(f"{auto.__name__} has no class for {type(config).__name__}") from error
    classes = found if isinstance(found, tuple) else (found,)
    named = (each for each in classes if each.__name__ == checkpoint.architecture)
    return config, next(named, classes[0])


def _check_count(model_class: Any, config: Any, files: WeightFiles) -> None:
    """Refuse a config that describes a model of far more numbers than the weights have.

    :raises ModelLoadError: before anything of its size is allocated.
    """
    with torch.device("meta"):
        expected = sum(parameter.numel() for parameter in model_class(config).parameters())
    # what is tied is stored once; anything else that is missing is named later
    if expected > 2 * files.count() + 1_000_000:
        raise ModelLoadError(
            f"{files.folder.name}: config.json describes {expected} numbers, and the weights have "
            f"{files.count()}"
        )


def convert_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a checkpoint that has no ``tokenizer.json``."""
    with _quiet_transformers():
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).backend_tokenizer


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
