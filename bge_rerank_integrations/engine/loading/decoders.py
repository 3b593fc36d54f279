"""Decoders → scorers: one function a family, on transformers' model classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

from ...errors import UnsupportedModelError
from ..scorers import Scorer
from ..scorers.decoder import PACKED_ATTENTION, Compression, DecoderScorer
from ..scorers.encoder_configs import read_positive
from .checkpoint import Checkpoint
from .recipes import PACKED_DECODERS, Source
from .transformers_models import check_class, load_model

_ROPE_OF_LENGTH = ("dynamic", "longrope")
# FlagEmbedding, `models/configuration_minicpm_reranker.py`
_MINICPM = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "scale_emb": 1,
    "scale_depth": 1,
    "start_layer": 8,
    "head_multi": True,
}


def make_decoder(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """The logit of the relevant answer, its difference to the irrelevant one's, or a classifier's.

    :raises UnsupportedModelError: for layers that are not known to be packed rightly.
    """
    checkpoint, answer = source.checkpoint, source.recipe.answer
    if checkpoint.model_type not in PACKED_DECODERS:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} is a decoder of type {checkpoint.model_type!r}; those that "
            f"can be run are of {', '.join(PACKED_DECODERS)}"
        )
    _check_rope(checkpoint)
    if answer is None:
        check_class(checkpoint)
    model = _load_body(transformers.AutoModel, source, device, dtype)
    if not getattr(model.config, "is_causal", True):
        _disable_causal_mask(model)
    if answer is None:
        heads = {source.layers[-1]: _classifier_row(source, device)}
        return DecoderScorer(model, heads, padding_id=model.config.pad_token_id)
    # what else a tied model has saved is not what it was trained with
    tied: bool = model.config.tie_word_embeddings
    table = "model.embed_tokens.weight" if tied else "lm_head.weight"
    if tied and checkpoint.adapter is not None:
        table = checkpoint.adapter.output_table()

    def answer_row(token: str | int) -> torch.Tensor:
        if isinstance(token, str):
            token = source.tokenizer.ids(token)[0]
        return source.files.read_row([table], token).float()

    head = answer_row(answer.relevant)
    if answer.irrelevant is not None:
        head = head - answer_row(answer.irrelevant)
    return DecoderScorer(model, {source.layers[-1]: head.to(device)})


def make_bidirectional(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """Llama's layers without the causal mask, averaged over all tokens.

    As NVIDIA's `LlamaBidirectionalForSequenceClassification`, whose code is in NeMo's Automodel,
    `components/models/llama_bidirectional/model.py`.

    :raises UnsupportedModelError: for another pooling than the average.
    """
    checkpoint = source.checkpoint
    pooling = checkpoint.config.get("pooling", "avg")
    if pooling != "avg":
        raise UnsupportedModelError(
            f"{checkpoint.folder.name}: config.json has the pooling {pooling!r}, not 'avg'"
        )
    _check_rope(checkpoint)
    config = transformers.LlamaConfig.from_dict({**checkpoint.config, "model_type": "llama"})
    model = _load_body(transformers.LlamaModel, source, device, dtype, config)
    _disable_causal_mask(model)
    row = _classifier_row(source, device) / read_positive(checkpoint.config, "temperature", 1.0)
    return DecoderScorer(model, {source.layers[-1]: row}, pooling="mean")


def _check_rope(checkpoint: Checkpoint) -> None:
    kind = _rope(checkpoint.config)["rope_type"]
    if kind in _ROPE_OF_LENGTH:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} has rotary embeddings of type {kind!r}, which change with "
            "the longest text of a batch"
        )


def _classifier_row(source: Source, device: torch.device) -> torch.Tensor:
    """The row of a classifier of one label, `(hidden,)` float32."""
    size = source.checkpoint.config["hidden_size"]
    return source.files.read("score.weight", (1, size))[0].float().to(device)


def _disable_causal_mask(model: Any) -> None:
    """Let each token see those behind it too."""
    for layer in model.layers:
        layer.self_attn.is_causal = False


def make_layerwise(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """MiniCPM as Granite: the same layers, with the scales as multipliers (exact in float32).

    What its config leaves out has the defaults of FlagEmbedding's `LayerWiseMiniCPMConfig`.

    :raises UnsupportedModelError: for positions that change with a batch.
    """
    _check_rope(source.checkpoint)
    given = {**_MINICPM, **source.checkpoint.config}
    heads, layers = given["num_attention_heads"], given["num_hidden_layers"]
    config = transformers.GraniteConfig(
        **_shared_config(given, source.layers[-1]),
        hidden_act=given["hidden_act"],
        embedding_multiplier=given["scale_emb"],
        # the scale counts all layers of the released model, also those that are not loaded
        residual_multiplier=given["scale_depth"] / math.sqrt(layers),
        attention_multiplier=(given["hidden_size"] // heads) ** -0.5,
    )
    if given["head_multi"]:
        start = given["start_layer"]
        rows = _layer_heads(source, device, {layers: layers - start for layers in source.layers})
    else:
        row = source.files.read_row(["lm_head.linear_head.weight"], 0).to(device)
        rows = dict.fromkeys(source.layers, row)
    return DecoderScorer(_load_body(transformers.GraniteModel, source, device, dtype, config), rows)


def make_lightweight(source: Source, device: torch.device, dtype: torch.dtype) -> Scorer:
    """Gemma2's layers, without their attention cap, as the released class runs them.

    :raises UnsupportedModelError: for positions that change with a batch.
    """
    _check_rope(source.checkpoint)
    # what its config leaves out has the defaults of Gemma2's
    given = {**transformers.Gemma2Config().to_dict(), **source.checkpoint.config}
    config = source.config
    body_config = transformers.Gemma2Config(
        **_shared_config(given, source.layers[-1]),
        head_dim=given["head_dim"],
        hidden_activation=given["hidden_activation"],
        query_pre_attn_scalar=given["query_pre_attn_scalar"],
        sliding_window=given["sliding_window"],
    )
    # the j-th layer that is scored takes head j, whichever layer it is
    heads = _layer_heads(source, device, {layers: j for j, layers in enumerate(source.layers)})
    compression = None
    if config.compress_layers and (config.compress_ratio or 1) > 1:
        compression = Compression(frozenset(config.compress_layers), config.compress_ratio or 1)
    cap = given["final_logit_softcapping"]
    return DecoderScorer(
        _load_body(transformers.Gemma2Model, source, device, dtype, body_config),
        heads,
        compression=compression,
        activation=None if cap is None else lambda logits: cap * torch.tanh(logits / cap),
    )


def _shared_config(given: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Config values that Granite and Gemma2 name as the released models do."""
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "attention_bias",
    )
    return {
        **{name: given[name] for name in names},
        "num_key_value_heads": given["num_key_value_heads"] or given["num_attention_heads"],
        "num_hidden_layers": layers,
        "rope_parameters": _rope(given),
        "pad_token_id": given.get("pad_token_id"),
    }


def _rope(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary embeddings as transformers 5 names them; older configs have two keys for them."""
    rope = {**(given.get("rope_scaling") or {}), **(given.get("rope_parameters") or {})}
    rope["rope_type"] = rope.pop("rope_type", rope.pop("type", "default"))
    rope.pop("type", None)
    rope.setdefault("rope_theta", given.get("rope_theta", 10_000.0))
    return rope


def _load_body(
    model_class: Any, source: Source, device: torch.device, dtype: torch.dtype, config: Any = None
) -> Any:
    """A decoder's body; None takes the checkpoint's own config."""
    return load_model(
        model_class, source, device, dtype, config, attn_implementation=PACKED_ATTENTION
    )


def _layer_heads(
    source: Source, device: torch.device, numbers: Mapping[int, int]
) -> dict[int, torch.Tensor]:
    """The head's row of each layer, by the heads' numbers in the checkpoint."""
    return {
        layers: source.files.read_row([f"lm_head.{number}.linear_head.weight"], 0).to(device)
        for layers, number in numbers.items()
    }


MAKERS: Mapping[str, Callable[[Source, torch.device, torch.dtype], Scorer]] = {
    "decoder": make_decoder,
    "bidirectional": make_bidirectional,
    "layerwise": make_layerwise,
    "lightweight": make_lightweight,
}
