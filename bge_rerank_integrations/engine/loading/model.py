"""A checkpoint → tokenizer and scorers, ready to run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint, open_checkpoint
from bge_rerank_integrations.engine.loading.devices import (
    default_batch_tokens,
    resolve_device,
    resolve_dtype,
)
from bge_rerank_integrations.engine.loading.families import (
    check_settings,
    family_of,
    scored_layers,
)
from bge_rerank_integrations.engine.loading.load_request import LoadRequest
from bge_rerank_integrations.engine.loading.tokenizers import load_tokenizer, make_tokenizer
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.encoder_shape import readable_tokens
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer
from bge_rerank_integrations.engine.tokenization.prompts import PromptTokenizer
from bge_rerank_integrations.settings import EngineConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What an engine runs.

    :param tokenizer: texts of pairs → sequences.
    :param scorers: one a device.
    :param layers: numbers of layers that logits are computed after, ascending.
    :param is_layerwise: whether the model has a head of its own for several layers.
    :param devices: where the scorers run.
    :param dtype: precision of the weights on the first device.
    :param max_length: tokens of a pair, after the model's own limit.
    :param max_batch_tokens: tokens in one forward pass.
    """

    tokenizer: PairTokenizer | PromptTokenizer
    scorers: tuple[Scorer, ...]
    layers: tuple[int, ...]
    is_layerwise: bool
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    max_length: int
    max_batch_tokens: int


def load(config: EngineConfig) -> LoadedModel:
    """Load a model onto its devices.

    :raises ModelLoadError: if the files are missing, incomplete, corrupt or out of reach.
    :raises UnsupportedModelError: if they are not a reranker that this package can run.
    :raises ConfigurationError: if a setting does not fit this machine or model.
    """
    devices = tuple(resolve_device(name) for name in config.devices)
    checkpoint = open_checkpoint(config)
    family = family_of(checkpoint)
    check_settings(config, family)
    layers = scored_layers(config, checkpoint, family)
    max_length = _max_length(config, checkpoint)
    raw_tokenizer = load_tokenizer(checkpoint)
    tokenizer = make_tokenizer(raw_tokenizer, config, checkpoint, family, max_length)
    scorers = tuple(
        family.make_scorer(
            LoadRequest(
                checkpoint,
                config,
                raw_tokenizer,
                family.template,
                layers,
                device,
                resolve_dtype(config.dtype, device),
            )
        )
        for device in devices
    )
    return LoadedModel(
        tokenizer=tokenizer,
        scorers=scorers,
        layers=layers,
        is_layerwise=family.is_layerwise,
        devices=devices,
        dtype=resolve_dtype(config.dtype, devices[0]),
        max_length=max_length,
        max_batch_tokens=config.max_batch_tokens or default_batch_tokens(devices[0]),
    )


def _max_length(config: EngineConfig, checkpoint: Checkpoint) -> int:
    """The configured length, within what the model can count and see at once."""
    given = checkpoint.config
    positions = readable_tokens(given) or config.max_length
    if given.get("sliding_window") and given.get("use_sliding_window", True):
        # up to its window, a layer with a sliding window is an ordinary one
        positions = min(positions, int(given["sliding_window"]))
    if config.max_length > positions:
        logger.warning("max_length is %d: %s reads no more tokens", positions, config.model)
    return min(config.max_length, positions)
