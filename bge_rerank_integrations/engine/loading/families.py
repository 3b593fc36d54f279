"""Model families: which scorer a checkpoint gets, and which settings the family takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.weights import WeightFiles
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


def _imported(module: str, maker: str) -> Callable[[LoadRequest], Scorer]:
    """A function of this package's module, imported when it is called.

    The import of transformers, which decoders need, takes seconds.
    """

    def make(request: LoadRequest) -> Scorer:
        scorer: Scorer = getattr(import_module(f"{__package__}.{module}"), maker)(request)
        return scorer

    return make


_ENCODER = Family("encoder", _imported("encoders", "make_encoder"))
_BGE_DECODER = Family("decoder", _imported("decoders", "make_decoder"), templates.BGE)
_LAYERWISE = Family(
    "layerwise",
    _imported("decoders", "make_layerwise"),
    templates.BGE,
    frozenset({"cutoff_layers"}),
)
_LIGHTWEIGHT = Family(
    "lightweight",
    _imported("decoders", "make_lightweight"),
    templates.BGE_LIGHTWEIGHT,
    frozenset(_LAYER_SETTINGS),
)
_DECODERS = {
    "GemmaForCausalLM": _BGE_DECODER,
    "Qwen3ForCausalLM": Family("decoder", _imported("decoders", "make_decoder"), templates.QWEN3),
    "Qwen2ForCausalLM": Family(
        "decoder", _imported("decoders", "make_decoder"), templates.MXBAI_V2
    ),
    "LayerWiseMiniCPMForCausalLM": _LAYERWISE,
    "CostWiseGemmaForCausalLM": _LIGHTWEIGHT,
}
_FAMILIES = (_ENCODER, _BGE_DECODER, _LAYERWISE, _LIGHTWEIGHT)
