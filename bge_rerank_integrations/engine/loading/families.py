"""From a recipe to a scorer: which one a checkpoint gets, and which settings its family takes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.recipes import LAYER_SETTINGS, RECIPES, Recipe
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.heads import Head
from bge_rerank_integrations.engine.scorers.weights import WeightFiles
from bge_rerank_integrations.engine.tokenization.pairs import Template
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate
from bge_rerank_integrations.errors import ConfigurationError, UnsupportedModelError
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
    checkpoint = request.checkpoint
    if checkpoint.config.get("quantization_config"):
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is quantized already: its config.json has a "
            "quantization_config, and only floating-point weights can be read"
        )
    # the import of transformers, which decoders need, takes seconds
    kind = "encoders" if request.recipe.family == "encoder" else "decoders"
    makers = import_module(f"{__package__}.{kind}").MAKERS
    scorer: Scorer = makers[request.recipe.family](request)
    return scorer


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
    start = int(checkpoint.config.get("start_layer", 1))
    if config.cutoff_layers[0] < start or config.cutoff_layers[-1] > deepest:
        raise ConfigurationError(
            f"cutoff_layers must be within {start}..{deepest} for {config.model}, got "
            f"{list(config.cutoff_layers)}"
        )
    return config.cutoff_layers
