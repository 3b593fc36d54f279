"""A checkpoint → tokenizer and scorers, ready to run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import open_checkpoint
from bge_rerank_integrations.engine.loading.devices import (
    default_batch_tokens,
    resolve_device,
    resolve_dtype,
)
from bge_rerank_integrations.engine.loading.families import (
    LoadRequest,
    check_config,
    check_settings,
    make_scorer,
    max_positions,
    scored_layers,
)
from bge_rerank_integrations.engine.loading.proofs import read_recipe
from bge_rerank_integrations.engine.loading.recipes import Recipe
from bge_rerank_integrations.engine.loading.tokenizer import load_tokenizer
from bge_rerank_integrations.engine.loading.tokenizer_files import TokenizerFiles
from bge_rerank_integrations.engine.scorers import Scorer, encoder_configs
from bge_rerank_integrations.engine.scorers.weights import FlashWeightFiles, WeightFiles
from bge_rerank_integrations.engine.tokenization.pairs import PairTokenizer, Template
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate, PromptTemplate
from bge_rerank_integrations.errors import UnsupportedModelError
from bge_rerank_integrations.settings import EngineConfig

logger = logging.getLogger(__name__)


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
    check_config(checkpoint, recipe)
    is_flash = checkpoint.model_type == "xlm-roberta-flash"
    files = (FlashWeightFiles if is_flash else WeightFiles)(
        checkpoint.folder, checkpoint.open_tensors()
    )
    files.check_sizes(checkpoint.config)
    layers = scored_layers(config, checkpoint, recipe)
    tokenizer_files = TokenizerFiles(checkpoint)
    tokenizer, truncates_left = load_tokenizer(tokenizer_files, lowercase=recipe.lowercase)
    template = _template_of(tokenizer, tokenizer_files, recipe)
    logger.info("%s reads %s", checkpoint.folder.name, recipe.texts)
    scorers = tuple(
        make_scorer(
            LoadRequest(
                checkpoint=checkpoint,
                recipe=recipe,
                files=files,
                config=config,
                tokenizer=tokenizer,
                template=template,
                layers=layers,
                device=device,
                dtype=dtype,
            )
        )
        for device, dtype in zip(devices, dtypes, strict=True)
    )
    return LoadedModel(
        folder=checkpoint.folder,
        tokenizer=PairTokenizer(
            tokenizer,
            template,
            max_positions=max_positions(checkpoint, recipe, is_padded=scorers[0].padded),
            saved_length=recipe.max_length,
            truncates_left=truncates_left,
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


def _template_of(tokenizer: Tokenizer, files: TokenizerFiles, recipe: Recipe) -> Template:
    """What stands around a pair: the tokenizer's own template, or the recipe's.

    :raises UnsupportedModelError: if an encoder's tokenizer does not keep query and passage apart,
        or if the first token of a decoder's prompt is not in its vocabulary.
    """
    template, name = recipe.template, files.checkpoint.folder.name
    if template is None:
        has_types = files.has_types and encoder_configs.has_types(files.checkpoint.config)
        return PairTemplate.from_tokenizer(tokenizer, recipe.prompt, has_types=has_types)
    if not isinstance(template, PromptTemplate) or not template.has_bos:
        return template
    bos = files.bos(recipe.bos)
    if bos is None:
        return template
    token = tokenizer.token_to_id(bos)
    # a token that is named and not in the vocabulary was added behind it
    if token is None or token >= int(files.checkpoint.config.get("vocab_size", token + 1)):
        raise UnsupportedModelError(
            f"{name}: its sequences begin with {bos!r}, and its vocabulary has no such token. Name "
            "the right one as bos_token in tokenizer_config.json; null if there is none"
        )
    return replace(template, bos_id=token)
