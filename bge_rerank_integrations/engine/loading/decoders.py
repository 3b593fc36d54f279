"""Decoders → scorers: one function a family, on transformers' model classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import (
    AutoModel,
    Gemma2Config,
    Gemma2Model,
    GraniteConfig,
    GraniteModel,
    LlamaConfig,
    LlamaModel,
)

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.loading.families import LoadRequest
from bge_rerank_integrations.engine.loading.recipes import PACKED_DECODERS
from bge_rerank_integrations.engine.loading.transformers_models import load_model
from bge_rerank_integrations.engine.scorers import Scorer
from bge_rerank_integrations.engine.scorers.config_values import read_positive
from bge_rerank_integrations.engine.scorers.decoder import (
    PACKED_ATTENTION,
    Compression,
    DecoderScorer,
)
from bge_rerank_integrations.errors import UnsupportedModelError

_ROPE_OF_LENGTH = ("dynamic", "longrope")


def make_decoder(request: LoadRequest) -> Scorer:
    """The logit of the relevant answer, its difference to the irrelevant one's, or a classifier's.

    :raises UnsupportedModelError: for layers that are not known to be packed rightly.
    """
    checkpoint, answer = request.checkpoint, request.recipe.answer
    if checkpoint.model_type not in PACKED_DECODERS:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is a decoder of type {checkpoint.model_type!r}; those that "
            f"can be run are of {', '.join(PACKED_DECODERS)}"
        )
    _check_rope(checkpoint)
    model = load_model(AutoModel, request, attn_implementation=PACKED_ATTENTION)
    if not getattr(model.config, "is_causal", True):
        _see_all(model)
    if answer is None:
        heads = {request.layers[-1]: _classifier_row(request)}
        return DecoderScorer(model, heads, padding_id=model.config.pad_token_id)
    # what else a tied model has saved is not what it was trained with
    tied: bool = model.config.tie_word_embeddings
    table = "model.embed_tokens.weight" if tied else "lm_head.weight"
    if tied and checkpoint.adapter is not None:
        table = checkpoint.adapter.output_table()

    def answer_row(token: str | int) -> torch.Tensor:
        if isinstance(token, str):
            token = request.tokenizer.encode(token, add_special_tokens=False).ids[0]
        return request.files.read_row([table], token).float()

    head = answer_row(answer.relevant)
    if answer.irrelevant is not None:
        head = head - answer_row(answer.irrelevant)
    return DecoderScorer(model, {request.layers[-1]: head.to(request.device)})


def make_bidirectional(request: LoadRequest) -> Scorer:
    """Llama's layers without the causal mask, averaged over all tokens.

    As NVIDIA's `LlamaBidirectionalForSequenceClassification`, whose code is in NeMo's Automodel,
    `components/models/llama_bidirectional/model.py`.

    :raises UnsupportedModelError: for another pooling than the average.
    """
    checkpoint = request.checkpoint
    pooling = checkpoint.config.get("pooling", "avg")
    if pooling != "avg":
        raise UnsupportedModelError(
            f"{checkpoint.folder.name}: config.json has the pooling {pooling!r}, not 'avg'"
        )
    _check_rope(checkpoint)
    config = LlamaConfig.from_dict({**checkpoint.config, "model_type": "llama"})
    model = _load_body(LlamaModel, request, config)
    _see_all(model)
    row = _classifier_row(request) / read_positive(checkpoint.config, "temperature", 1.0)
    return DecoderScorer(model, {request.layers[-1]: row}, pooling="mean")


def _check_rope(checkpoint: Checkpoint) -> None:
    # older checkpoints call it rope_scaling, and its type "type"
    rope = checkpoint.config.get("rope_parameters") or checkpoint.config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in _ROPE_OF_LENGTH:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} has rotary embeddings of type {kind!r}, which change with "
            "the longest text of a batch"
        )


def _classifier_row(request: LoadRequest) -> torch.Tensor:
    """The row of a classifier of one label, `(hidden,)` float32."""
    size = request.checkpoint.config["hidden_size"]
    return request.files.read("score.weight", (1, size))[0].float().to(request.device)


def _see_all(model: Any) -> None:
    """Let each token see those behind it too."""
    for layer in model.layers:
        layer.self_attn.is_causal = False


def make_layerwise(request: LoadRequest) -> Scorer:
    """MiniCPM as Granite: the same layers, with the scales as multipliers (exact in float32)."""
    given = request.checkpoint.config
    config = GraniteConfig(
        **_shared_config(given, request.layers[-1]),
        hidden_act=given["hidden_act"],
        embedding_multiplier=given["scale_emb"],
        # the scale counts all layers of the released model, also those that are not loaded
        residual_multiplier=given["scale_depth"] / math.sqrt(given["num_hidden_layers"]),
        attention_multiplier=(given["hidden_size"] // given["num_attention_heads"]) ** -0.5,
    )
    start = given["start_layer"]
    heads = _layer_heads(request, {layers: layers - start for layers in request.layers})
    return DecoderScorer(_load_body(GraniteModel, request, config), heads)


def make_lightweight(request: LoadRequest) -> Scorer:
    """Gemma2's layers, without their attention cap, as the released class runs them."""
    given, config = request.checkpoint.config, request.config
    body_config = Gemma2Config(
        **_shared_config(given, request.layers[-1]),
        head_dim=given["head_dim"],
        hidden_activation=given["hidden_activation"],
        query_pre_attn_scalar=given["query_pre_attn_scalar"],
        sliding_window=given["sliding_window"],
    )
    # the j-th layer that is scored takes head j, whichever layer it is
    heads = _layer_heads(request, {layers: j for j, layers in enumerate(request.layers)})
    compression = None
    if config.compress_layers and (config.compress_ratio or 1) > 1:
        compression = Compression(frozenset(config.compress_layers), config.compress_ratio or 1)
    cap = float(given["final_logit_softcapping"])
    return DecoderScorer(
        _load_body(Gemma2Model, request, body_config),
        heads,
        compression=compression,
        activation=lambda logits: cap * torch.tanh(logits / cap),
    )


def _shared_config(given: dict[str, Any], layers: int) -> dict[str, Any]:
    """Config values that Granite and Gemma2 name as the released models do."""
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "attention_bias",
    )
    return {
        **{name: given[name] for name in names},
        "num_hidden_layers": layers,
        "rope_parameters": {"rope_type": "default", "rope_theta": given["rope_theta"]},
        "pad_token_id": given.get("pad_token_id"),
    }


def _load_body(model_class: Any, request: LoadRequest, config: Any) -> Any:
    return load_model(model_class, request, config, attn_implementation=PACKED_ATTENTION)


def _layer_heads(request: LoadRequest, numbers: Mapping[int, int]) -> dict[int, torch.Tensor]:
    """The head's row of each layer, by the heads' numbers in the checkpoint."""
    return {
        layers: request.files.read_row([f"lm_head.{number}.linear_head.weight"], 0).to(
            request.device
        )
        for layers, number in numbers.items()
    }


MAKERS: Mapping[str, Callable[[LoadRequest], Scorer]] = {
    "decoder": make_decoder,
    "bidirectional": make_bidirectional,
    "layerwise": make_layerwise,
    "lightweight": make_lightweight,
}
