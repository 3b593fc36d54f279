"""A checkpoint → tokenizer and scorers, ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint, open_checkpoint
from bge_rerank_integrations.engine.loading.devices import (
    default_batch_tokens,
    resolve_device,
    resolve_dtype,
)
from bge_rerank_integrations.engine.loading.families import (
    LoadRequest,
    check_settings,
    make_scorer,
    scored_layers,
)
from bge_rerank_integrations.engine.loading.recipes import read_recipe
from bge_rerank_integrations.engine.loading.tokenizers import load_tokenizer, template_of
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.bert_config import max_positions
from bge_rerank_integrations.engine.scorers.weights import FlashWeightFiles, WeightFiles
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer
from bge_rerank_integrations.settings import EngineConfig


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What an engine runs.

    :param folder: of the model's files.
    :param tokenizer: texts of pairs → sequences.
    :param scorers: one a device.
    :param layers: numbers of layers that logits are computed after, ascending; one output each.
    :param is_layerwise: whether the model has a head of its own for several layers.
    :param activation: what ``normalize`` reports of a logit.
    :param devices: where the scorers run.
    :param dtype: precision of the weights on the first device.
    :param max_batch_tokens: tokens in one forward pass.
    """

    folder: Path
    tokenizer: PairTokenizer
    scorers: tuple[Scorer, ...]
    layers: tuple[int, ...]
    is_layerwise: bool
    activation: str
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    max_batch_tokens: int


def load(config: EngineConfig) -> LoadedModel:
    """Load a model onto its devices.

    :raises ModelLoadError: if the files are missing, incomplete, corrupt or out of reach.
    :raises UnsupportedModelError: if they are not a reranker that this package can run.
    :raises ConfigurationError: if a setting does not fit this machine or model.
    """
    devices = tuple(resolve_device(name) for name in config.devices)
    dtypes = tuple(resolve_dtype(config.dtype, device) for device in devices)
    checkpoint = open_checkpoint(config)
    recipe = read_recipe(config, checkpoint)
    check_settings(config, recipe)
    is_flash = checkpoint.model_type == "xlm-roberta-flash"
    files = (FlashWeightFiles if is_flash else WeightFiles)(
        checkpoint.folder, checkpoint.open_tensors()
    )
    files.check_sizes(checkpoint.config)
    layers = scored_layers(config, checkpoint, recipe)
    tokenizer = load_tokenizer(checkpoint, recipe)
    template = template_of(tokenizer, checkpoint, recipe)
    scorers = tuple(
        make_scorer(
            LoadRequest(
                checkpoint,
                recipe,
                files,
                config,
                tokenizer,
                template,
                layers,
                device,
                dtype,
            )
        )
        for device, dtype in zip(devices, dtypes, strict=True)
    )
    return LoadedModel(
        folder=checkpoint.folder,
        tokenizer=PairTokenizer(
            tokenizer,
            template,
            max_positions=_max_positions(checkpoint),
            saved_length=recipe.max_length,
            max_cached_tokens=config.max_cached_tokens,
        ),
        scorers=scorers,
        layers=layers,
        is_layerwise=recipe.is_layerwise,
        activation=recipe.activation,
        devices=devices,
        dtype=dtypes[0],
        max_batch_tokens=config.max_batch_tokens or default_batch_tokens(devices[0], dtypes[0]),
    )


def _max_positions(checkpoint: Checkpoint) -> int | None:
    """Tokens that the model can count and see at once; None if its config does not say."""
    given = checkpoint.config
    positions = max_positions(given)
    if given.get("sliding_window") and given.get("use_sliding_window", True):
        # up to its window, a layer with a sliding window is an ordinary one
        window = int(given["sliding_window"])
        return window if positions is None else min(positions, window)
    return positions
