"""From a recipe to a scorer: which one a checkpoint gets, and which settings its family takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading import ledger
from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.recipes import LAYER_SETTINGS, RECIPES, Recipe
from bge_rerank_integrations.engine.scorers import Scorer, encoder_configs
from bge_rerank_integrations.engine.scorers.heads import Head
from bge_rerank_integrations.engine.scorers.weights import WeightFiles
from bge_rerank_integrations.engine.tokenization.pairs import Template
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate
from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.settings import EngineConfig


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One scorer to make.

    :param checkpoint: the model's folder and config.
    :param recipe: what makes its logit.
    :param files: its weights.
    :param config: the caller's settings.
    :param tokenizer: the checkpoint's.
    :param template: what stands around a pair.
    :param layers: numbers of layers to score after, ascending.
    :param device: where it is to run.
    :param dtype: its precision.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    files: WeightFiles
    config: EngineConfig
    tokenizer: Tokenizer
    template: Template
    layers: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype

    @property
    def passage_type(self) -> int:
        """Token type of the passage, for encoders."""
        return self.template.passage_type if isinstance(self.template, PairTemplate) else 0

    def module_head(self) -> Head | None:
        """The recipe's pooling and modules; None for the checkpoint's own classifier."""
        recipe = self.recipe
        if recipe.pooling is None:
            return None
        modules = (module.load(self.checkpoint, self.device) for module in recipe.modules)
        return Head(recipe.pooling, tuple(modules))


def make_scorer(request: LoadRequest) -> Scorer:
    """The scorer of a recipe, with its weights on its device.

    :raises ModelLoadError: if weights are missing, of another shape or not readable.
    :raises UnsupportedModelError: if this package has no scorer for the checkpoint's layers, or
        the checkpoint is quantized already.
    """
    if request.recipe.family == "encoder":
        from bge_rerank_integrations.engine.loading.encoders import make_encoder

        return make_encoder(request)
    # the import of transformers, which decoders need, takes seconds
    from bge_rerank_integrations.engine.loading.decoders import MAKERS

    return MAKERS[request.recipe.family](request)


def config_reader(checkpoint: Checkpoint, recipe: Recipe) -> str:
    """Who reads ``config.json``: the name of a table of the ledger, or transformers."""
    if recipe.family in ("layerwise", "lightweight"):
        return recipe.family
    if recipe.family == "encoder" and encoder_configs.is_packable_modernbert(checkpoint.config):
        return "modernbert"
    if recipe.family == "encoder" and checkpoint.model_type in encoder_configs.MODEL_TYPES:
        return "bert"
    return "transformers"


def check_config(checkpoint: Checkpoint, recipe: Recipe) -> None:
    """Refuse keys of ``config.json`` that a reference obeys and this package does not.

    :raises UnsupportedModelError: naming the key and what to do instead.
    """
    table = ledger.CONFIG[config_reader(checkpoint, recipe)]
    ledger.check(checkpoint, "config.json", checkpoint.config, table)


def max_positions(checkpoint: Checkpoint, recipe: Recipe, *, is_padded: bool) -> int | None:
    """Tokens that the model can count, and see at once; None if nothing says it.

    :param is_padded: whether transformers runs it, which knows layers of sliding windows.
    """
    config = checkpoint.config
    is_catalogs = recipe.family in ("bidirectional", "layerwise", "lightweight")
    if config_reader(checkpoint, recipe) == "transformers" and not is_catalogs:
        # what is left out has the defaults of transformers' class
        from bge_rerank_integrations.engine.loading.transformers_models import read_config

        config = read_config(checkpoint).to_dict()
    positions = encoder_configs.max_positions(config)
    window: int | None = config.get("sliding_window")
    # lightweight models' class knows no other layers than Gemma2's, with a window in every second
    layers = None if recipe.family == "lightweight" else config.get("layer_types")
    if is_padded or not window or (layers and "sliding_attention" not in layers):
        return positions
    # up to its window, a layer with a sliding window is an ordinary one
    return window if positions is None else min(positions, window)


def check_settings(config: EngineConfig, recipe: Recipe) -> None:
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


def scored_layers(config: EngineConfig, checkpoint: Checkpoint, recipe: Recipe) -> tuple[int, ...]:
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
