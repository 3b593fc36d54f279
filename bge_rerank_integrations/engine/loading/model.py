"""A checkpoint → tokenizer and scorers, ready to run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from ...errors import ConfigurationError, UnsupportedModelError
from ...settings import EngineConfig
from ..scorers import Scorer, encoder_configs
from ..scorers.weights import FlashWeightFiles, WeightFiles
from ..tokenization.pairs import PairTokenizer, Template
from ..tokenization.templates import PairTemplate
from . import ledger
from .checkpoint import Checkpoint, open_checkpoint
from .devices import default_batch_tokens, resolve_device, resolve_dtype
from .proofs import read_recipe
from .recipes import LAYER_SETTINGS, RECIPES, PromptTemplate, Recipe, Source
from .tokenizer import load_tokenizer
from .tokenizer_files import TokenizerFiles

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
    source = _open(config)
    return LoadedModel(
        folder=source.checkpoint.folder,
        tokenizer=source.tokenizer,
        scorers=tuple(map(partial(make_scorer, source), devices, dtypes)),
        layers=source.layers,
        is_layerwise=source.recipe.is_layerwise,
        activation=source.recipe.activation,
        devices=devices,
        dtype=dtypes[0],
        max_batch_tokens=config.max_batch_tokens or default_batch_tokens(devices[0], dtypes[0]),
    )


def _open(config: EngineConfig) -> Source:
    """Find a model's files and what proves how it scores; check all but the weights' numbers."""
    checkpoint = open_checkpoint(config)
    recipe = read_recipe(config, checkpoint)
    _check_settings(config, recipe)
    # keys that a reference obeys and this package does not
    table = ledger.CONFIG[config_reader(checkpoint, recipe)]
    ledger.check(f"{checkpoint.folder.name}/config.json", checkpoint.config, table)
    is_flash = checkpoint.model_type == "xlm-roberta-flash"
    files = (FlashWeightFiles if is_flash else WeightFiles)(
        checkpoint.folder, checkpoint.open_tensors()
    )
    files.check_sizes(checkpoint.config)
    layers = _scored_layers(config, checkpoint, recipe)
    tokenizer_files = TokenizerFiles(checkpoint)
    tokenizer, truncates_left = load_tokenizer(tokenizer_files, lowercase=recipe.lowercase)
    pair_tokenizer = PairTokenizer(
        tokenizer,
        _template_of(tokenizer, tokenizer_files, recipe),
        max_positions=_max_positions(checkpoint, recipe),
        saved_length=recipe.max_length,
        truncates_left=truncates_left,
        max_cached_tokens=config.max_cached_tokens,
    )
    logger.info("%s reads %s", checkpoint.folder.name, recipe.texts)
    return Source(config, checkpoint, recipe, files, pair_tokenizer, layers)


def make_scorer(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """The scorer of a model, with its weights on a device.

    :raises ModelLoadError: if weights are missing, of another shape or not readable.
    :raises UnsupportedModelError: if this package has no scorer for the checkpoint's layers, or
        the checkpoint is quantized already.
    """
    if source.recipe.family == "encoder":
        from .encoders import make_encoder

        return make_encoder(source, device, dtype)
    # the import of transformers, which decoders need, takes seconds
    from .decoders import MAKERS

    return MAKERS[source.recipe.family](source, device, dtype)


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


def config_reader(checkpoint: Checkpoint, recipe: Recipe) -> str:
    """Who reads ``config.json``: the name of a table of the ledger, or transformers."""
    if recipe.family in ("layerwise", "lightweight"):
        return recipe.family
    if recipe.family == "encoder" and encoder_configs.is_packable_modernbert(checkpoint.config):
        return "modernbert"
    if recipe.family == "encoder" and checkpoint.model_type in encoder_configs.MODEL_TYPES:
        return "bert"
    return "transformers"


def obeyed(checkpoint: Checkpoint, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What of a checkpoint's files decides its scores, for ``bge-rerank models``.

    :returns: a file or key, and its value or what it decides.
    """
    for name, entry in ledger.FILES.items():
        if entry.word == "obeyed" and checkpoint.path(name).exists():
            yield name, entry.note
    tables = {
        "config.json": ledger.CONFIG[config_reader(checkpoint, recipe)],
        "tokenizer_config.json": ledger.TOKENIZER_CONFIG,
        "adapter_config.json": ledger.ADAPTER,
    }
    for name, table in tables.items():
        for key, value in checkpoint.read_json(name).items():
            if key in table and table[key].word == "obeyed" and value is not None:
                # a model's name is what is copied
                yield f"{name}: {key}", repr(value)[: None if "name_or_path" in key else 60]


def _max_positions(checkpoint: Checkpoint, recipe: Recipe) -> int | None:
    """Tokens that the model can count, and see at once; None if nothing says it."""
    config = checkpoint.config
    # what transformers runs knows layers of sliding windows
    is_padded = recipe.family == "encoder" and not encoder_configs.is_packable(config)
    is_catalogs = recipe.family in ("bidirectional", "layerwise", "lightweight")
    if config_reader(checkpoint, recipe) == "transformers" and not is_catalogs:
        # what is left out has the defaults of transformers' class
        from .transformers_models import read_config

        config = read_config(checkpoint).to_dict()
    positions = encoder_configs.max_positions(config)
    window: int | None = config.get("sliding_window")
    # lightweight models' class knows no other layers than Gemma2's, with a window in every second
    layers = None if recipe.family == "lightweight" else config.get("layer_types")
    if is_padded or not window or (layers and "sliding_attention" not in layers):
        return positions
    # up to its window, a layer with a sliding window is an ordinary one
    return window if positions is None else min(positions, window)


def _check_settings(config: EngineConfig, recipe: Recipe) -> None:
    """Refuse settings that the recipe's family does not take.

    :raises ConfigurationError: naming the setting and the family.
    """
    if config.dtype == "int8" and recipe.family != "encoder":
        raise ConfigurationError(
            f"dtype 'int8' is for encoders, and {config.model} is of the {recipe.family} family"
        )
    for name in LAYER_SETTINGS:
        if getattr(config, name) is not None and name not in recipe.settings:
            takers = [each.family for each in RECIPES.values() if name in each.settings]
            raise ConfigurationError(
                f"{name} must be None for {config.model}, which is of the {recipe.family} family "
                f"(it is for {', '.join(takers)}), got {getattr(config, name)!r}"
            )


def _scored_layers(config: EngineConfig, checkpoint: Checkpoint, recipe: Recipe) -> tuple[int, ...]:
    """Numbers of layers to score after, ascending.

    :raises ConfigurationError: for a cutoff layer that the model has no head for.
    """
    deepest = int(checkpoint.config.get("num_hidden_layers", 0))
    if not recipe.is_layerwise or config.cutoff_layers is None:
        return (deepest,)
    # what a config leaves out has the defaults of FlagEmbedding's classes
    is_lightweight = recipe.family == "lightweight"
    start = int(checkpoint.config.get("start_layer", 28 if is_lightweight else 8))
    step = int(checkpoint.config.get("layer_sep", 28)) if is_lightweight else 1
    if set(config.cutoff_layers) - set(range(start, deepest + 1, step)):
        every = f" in steps of {step}" if step > 1 else ""
        raise ConfigurationError(
            f"cutoff_layers must be within {start}..{deepest}{every} for {config.model}, got "
            f"{list(config.cutoff_layers)}"
        )
    return config.cutoff_layers
