"""Which scorer a checkpoint gets, decided by its own config, and what settings it has a use for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.encoders import make_encoder
from bge_rerank_integrations.engine.loading.load_request import LoadRequest
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.tokenization import templates
from bge_rerank_integrations.engine.tokenization.templates import PromptTemplate
from bge_rerank_integrations.errors import ConfigurationError, UnsupportedModelError
from bge_rerank_integrations.settings import EngineConfig


@dataclass(frozen=True, slots=True)
class Family:
    """A way to score.

    :param name: for messages.
    :param make_scorer: loads the weights.
    :param template: what the model is asked; None for encoders.
    :param settings: the settings that only some families have a use for.
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
    """Refuse settings that the family has no use for.

    :raises ConfigurationError: naming the setting and the family.
    """
    for name in ("prompt", "cutoff_layers", "compress_ratio", "compress_layers"):
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


def _decoder(maker: str) -> Callable[[LoadRequest], Scorer]:
    """One of :mod:`.decoders`, whose imports from transformers take seconds: when it is called."""

    def make(request: LoadRequest) -> Scorer:
        scorer: Scorer = getattr(import_module(f"{__package__}.decoders"), maker)(request)
        return scorer

    return make


_ENCODER = Family("encoder", make_encoder)
_BGE_DECODER = Family("decoder", _decoder("make_decoder"), templates.BGE, frozenset({"prompt"}))
_LAYERWISE = Family(
    "layerwise", _decoder("make_layerwise"), templates.BGE, frozenset({"prompt", "cutoff_layers"})
)
_LIGHTWEIGHT = Family(
    "lightweight",
    _decoder("make_lightweight"),
    templates.BGE_LIGHTWEIGHT,
    frozenset({"prompt", "cutoff_layers", "compress_ratio", "compress_layers"}),
)
_DECODERS = {
    "GemmaForCausalLM": _BGE_DECODER,
    "Qwen3ForCausalLM": Family(
        "decoder", _decoder("make_decoder"), templates.QWEN3, frozenset({"prompt"})
    ),
    "Qwen2ForCausalLM": Family(
        "decoder", _decoder("make_decoder"), templates.MXBAI_V2, frozenset({"prompt"})
    ),
    "LayerWiseMiniCPMForCausalLM": _LAYERWISE,
    "CostWiseGemmaForCausalLM": _LIGHTWEIGHT,
}
_FAMILIES = (_ENCODER, _BGE_DECODER, _LAYERWISE, _LIGHTWEIGHT)
