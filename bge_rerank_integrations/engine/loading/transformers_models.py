"""transformers' own model classes, and its conversion of older tokenizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from ...errors import ModelLoadError, UnsupportedModelError
from ..scorers import Scorer
from ..scorers.heads import PaddedScorer
from ..scorers.weights import WeightFiles
from .checkpoint import Checkpoint
from .recipes import Source
from .tokenizer_files import slow_message

logger = logging.getLogger(__name__)


def make_padded(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """Any ``*ForSequenceClassification`` of transformers, or any body with modules behind it.

    :raises UnsupportedModelError: for a model that only code of its own can run.
    """
    checkpoint = source.checkpoint
    head = source.recipe.module_head(device)
    check_class(checkpoint)
    positions = checkpoint.config.get("position_embedding_type") or "absolute"
    known = hasattr(_config_class(checkpoint)(), "position_embedding_type")
    if positions != "absolute" and not known:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} has positions of type {positions!r}, and transformers 5 "
            "reads those of any type as absolute"
        )
    auto = AutoModelForSequenceClassification if head is None else AutoModel
    model = load_model(auto, source, device, dtype)
    if isinstance(model, GenericForSequenceClassification) and model.config.pad_token_id is None:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name}: config.json has no pad_token_id, by which a "
            f"{type(model).__name__} finds the last token of each text in a batch"
        )
    logger.info("%s cannot be packed: its batches are padded", checkpoint.model_type)
    return PaddedScorer(model, source.tokenizer.template.passage_type, head)


def check_class(checkpoint: Checkpoint) -> None:
    """Refuse a class of the checkpoint's own: its code may pool or score in any way.

    :raises UnsupportedModelError: naming the class, and transformers' own.
    """
    named, kind = checkpoint.architecture, checkpoint.model_type
    classes = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(kind, ())
    known = (classes,) if isinstance(classes, str) else tuple(classes)
    is_known = named in known or not checkpoint.config.get("architectures")
    if not named.endswith("ForSequenceClassification"):
        is_known = is_known or hasattr(transformers, named)
    if not is_known:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is a {named}, and transformers' class of type {kind!r} is "
            f"{' or '.join(known) or 'no classifier'}: code of a checkpoint is never run, and that "
            "class may score otherwise. If it scores the same, name it in the architectures of "
            "config.json"
        )


def read_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """``config.json`` with the defaults of transformers' class for what it leaves out.

    :raises UnsupportedModelError: for a model that only code of its own can run.
    """
    config: PreTrainedConfig = _config_class(checkpoint).from_dict(checkpoint.config)
    if not checkpoint.architecture.endswith("ForSequenceClassification"):
        # as sentence-transformers does where a model was not saved as a classifier
        config.num_labels = 1
    return config


def _config_class(checkpoint: Checkpoint) -> Any:
    if checkpoint.model_type not in CONFIG_MAPPING:
        own = f" but in the checkpoint's own code ({checkpoint.config['auto_map']})"
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is of type {checkpoint.model_type!r}, which transformers "
            f"does not have{own if checkpoint.config.get('auto_map') else ''}; code of a "
            "checkpoint is never run"
        )
    return CONFIG_MAPPING[checkpoint.model_type]


def load_model(
    model_class: Any,
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    config: Any = None,
    **options: Any,
) -> PreTrainedModel:
    """Read weights into one of transformers' model classes; nothing may be missing.

    Tensors are read and converted one by one: half precision never holds a float32 copy of all.

    :param config: of the model; None: the checkpoint's, and the class that is for it.
    :param options: further arguments of ``from_pretrained``.
    :returns: the model in eval mode on the device.
    :raises ModelLoadError: if weights are missing, of another shape or not readable.
    """
    folder = source.checkpoint.folder
    try:
        with _quiet_transformers():
            if config is None:
                config, model_class = _config_and_class(source.checkpoint, model_class)
            source.files.check_numbers()
            _check_count(model_class, config, source.files)
            # tensors are given, and no folder: which files they are in, what an adapter changes and
            # whether peft is installed is not decided a second time
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(source.files.tensors),
                dtype=dtype,
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


def _config_and_class(checkpoint: Checkpoint, auto: Any) -> tuple[Any, Any]:
    """transformers' config of a checkpoint, and the class that one of its auto classes has for it.

    :raises ValueError: if there is no such class.
    """
    config = read_config(checkpoint)
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
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise UnsupportedModelError(slow_message(folder.name, type(tokenizer).__name__))
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


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
