"""Model families: which scorer a checkpoint gets, and which settings the family takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.encoder import EncoderScorer
from bge_rerank_integrations.engine.scorers.encoder_config import (
    MODEL_TYPES,
    EncoderConfig,
    is_packable,
)
from bge_rerank_integrations.engine.scorers.heads import classification_head
from bge_rerank_integrations.engine.scorers.weights import WeightFiles, Weights
from bge_rerank_integrations.engine.tokenization import templates
from bge_rerank_integrations.engine.tokenization.templates import PairTemplate, PromptTemplate
from bge_rerank_integrations.errors import ConfigurationError, UnsupportedModelError
from bge_rerank_integrations.settings import EngineConfig

_LAYER_SETTINGS = ("cutoff_layers", "compress_ratio", "compress_layers")


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One scorer to make.

    :param checkpoint: the model's folder and config.
    :param files: its weights.
    :param config: the caller's settings.
    :param tokenizer: the checkpoint's.
    :param template: what stands around a pair.
    :param layers: numbers of layers to score after, ascending.
    :param device: where it is to run.
    :param dtype: its precision.
    """

    checkpoint: Checkpoint
    files: WeightFiles
    config: EngineConfig
    tokenizer: Tokenizer
    template: PairTemplate | PromptTemplate
    layers: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype

    @property
    def passage_type(self) -> int:
        """Token type of the passage, for encoders."""
        return self.template.passage_type if isinstance(self.template, PairTemplate) else 0


@dataclass(frozen=True, slots=True)
class Family:
    """A way to score.

    :param name: for messages.
    :param make_scorer: loads the weights.
    :param template: the prompt; None for encoders, whose tokenizers have a template for pairs.
    :param settings: those of ``cutoff_layers`` and compression that the family takes.
    """

    name: str
    make_scorer: Callable[[LoadRequest], Scorer]
    template: PromptTemplate | None = None
    settings: frozenset[str] = frozenset()

    @property
    def is_layerwise(self) -> bool:
        """Whether the model scores after several layers."""
        return "cutoff_layers" in self.settings


def family_of(checkpoint: Checkpoint) -> Family:
    """The family that a checkpoint's ``architectures`` name.

    :raises UnsupportedModelError: naming what was found and what is supported.
    """
    if checkpoint.architecture.endswith("ForSequenceClassification"):
        return _ENCODER
    if checkpoint.architecture not in _DECODERS:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is a {checkpoint.architecture} of type "
            f"{checkpoint.model_type!r}; supported are …ForSequenceClassification with one label, "
            + ", ".join(_DECODERS)
        )
    return _DECODERS[checkpoint.architecture]


def check_settings(config: EngineConfig, family: Family) -> None:
    """Refuse settings that the family does not take.

    :raises ConfigurationError: naming the setting and the family.
    """
    for name in _LAYER_SETTINGS:
        if getattr(config, name) is not None and name not in family.settings:
            takers = [f.name for f in _FAMILIES if name in f.settings]
            raise ConfigurationError(
                f"{name} must be None for {config.model}, which is of the {family.name} family "
                f"(it is for {', '.join(takers)}), got {getattr(config, name)!r}"
            )


def scored_layers(config: EngineConfig, checkpoint: Checkpoint, family: Family) -> tuple[int, ...]:
    """Numbers of layers to score after, ascending.

    :raises ConfigurationError: for a cutoff layer that the model has no head for.
    """
    deepest = int(checkpoint.config.get("num_hidden_layers", 0))
    if not family.is_layerwise or config.cutoff_layers is None:
        return (deepest,)
    start = int(checkpoint.config.get("start_layer", 1))
    if config.cutoff_layers[0] < start or config.cutoff_layers[-1] > deepest:
        raise ConfigurationError(
            f"cutoff_layers must be within {start}..{deepest} for {config.model}, got "
            f"{list(config.cutoff_layers)}"
        )
    return config.cutoff_layers


def _make_encoder(request: LoadRequest) -> Scorer:
    """Packed where the architecture is known, else transformers' own class on padded batches.

    :raises UnsupportedModelError: if it has more labels than one, or relative positions.
    """
    checkpoint = request.checkpoint
    _check_encoder(checkpoint)
    if not is_packable(checkpoint.config):
        # transformers' model classes take seconds to import
        from bge_rerank_integrations.engine.loading.transformers_models import make_padded

        return make_padded(request)
    weights = Weights(request.files, request.device, request.dtype)
    config = EncoderConfig.from_config(checkpoint.config)
    body = weights.module(config.layout.body)
    return EncoderScorer(body, config, request.passage_type, classification_head(weights, config))


def _check_encoder(checkpoint: Checkpoint) -> None:
    name, config = checkpoint.folder.name, checkpoint.config
    # as transformers counts: those that have a name, else the number given, else 2
    labels = len(config.get("id2label") or ()) or int(config.get("num_labels", 2))
    if labels != 1:
        raise UnsupportedModelError(f"{name} classifies into {labels} labels; a reranker has one")
    # transformers 5 would read such a model as if its positions were absolute
    positions = config.get("position_embedding_type", "absolute")
    if checkpoint.model_type in MODEL_TYPES and positions != "absolute":
        raise UnsupportedModelError(f"{name} has positions of type {positions!r}, not 'absolute'")


def _decoder(maker: str) -> Callable[[LoadRequest], Scorer]:
    """One of :mod:`.decoders`, whose imports from transformers take seconds: when it is called."""

    def make(request: LoadRequest) -> Scorer:
        scorer: Scorer = getattr(import_module(f"{__package__}.decoders"), maker)(request)
        return scorer

    return make


_ENCODER = Family("encoder", _make_encoder)
_BGE_DECODER = Family("decoder", _decoder("make_decoder"), templates.BGE)
_LAYERWISE = Family(
    "layerwise", _decoder("make_layerwise"), templates.BGE, frozenset({"cutoff_layers"})
)
_LIGHTWEIGHT = Family(
    "lightweight",
    _decoder("make_lightweight"),
    templates.BGE_LIGHTWEIGHT,
    frozenset(_LAYER_SETTINGS),
)
_DECODERS = {
    "GemmaForCausalLM": _BGE_DECODER,
    "Qwen3ForCausalLM": Family("decoder", _decoder("make_decoder"), templates.QWEN3),
    "Qwen2ForCausalLM": Family("decoder", _decoder("make_decoder"), templates.MXBAI_V2),
    "LayerWiseMiniCPMForCausalLM": _LAYERWISE,
    "CostWiseGemmaForCausalLM": _LIGHTWEIGHT,
}
_FAMILIES = (_ENCODER, _BGE_DECODER, _LAYERWISE, _LIGHTWEIGHT)
