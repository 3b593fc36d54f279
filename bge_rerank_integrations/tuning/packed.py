"""Training without padding: a transformers encoder whose layers see real tokens alone.

The encoder's own layers run, with their gradients; only what lies around them changes. Tokens of
all sequences go through them one behind the other, `(1, tokens)`, and attention, which transformers
lets a library provide (`AttentionInterface`), keeps to each sequence. The result is laid out again
as the caller expects it, so that pooling, heads and losses are those of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

# decoders that are scored register attention of their own, which takes other arguments
_NAME = "bge_rerank_packed_training"
# on a CPU, oneDNN keeps a compiled matmul for every number of rows
_ROW_MULTIPLE = 64

PACKED_MODEL_TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "modernbert"})
# positions are counted from the id of the padding token
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert"})


def train_packed(model: PreTrainedModel) -> None:
    """Let an encoder compute without padding from now on, in training and in evaluation.

    :param model: of one of ``PACKED_MODEL_TYPES``; with or without a classification head.
    """
    AttentionInterface.register(_NAME, _attention)
    # there is no mask: attention keeps to each sequence by itself
    AttentionMaskInterface.register(_NAME, _no_mask)
    model.set_attn_implementation(_NAME)
    body: Any = model.base_model
    body.forward = partial(_forward, body, body.forward)


def _no_mask(*_: Any, **__: Any) -> None:
    """An ``AttentionMaskInterface``."""


def _forward(
    body: PreTrainedModel,
    run: Callable[..., Any],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
    **_: Any,
) -> BaseModelOutputWithPoolingAndCrossAttentions:
    """The encoder's forward pass.

    :param run: what the encoder's class does.
    :param input_ids: `(n, length)`, like the mask and the types, with padding on either side.
    :returns: states `(n, length, hidden)`, 0 at padding.
    """
    real = attention_mask.bool()
    lengths = real.sum(1).tolist()
    n_padding = -sum(lengths) % _ROW_MULTIPLE if input_ids.device.type == "cpu" else 0
    positions = real.cumsum(1)[real] - 1
    if body.config.model_type in _OFFSET_POSITIONS:
        positions = positions + body.config.pad_token_id + 1
    packed = {"input_ids": input_ids[real], "position_ids": positions}
    if token_type_ids is not None:
        packed["token_type_ids"] = token_type_ids[real]
    rows = {name: pad(values, (0, n_padding))[None] for name, values in packed.items()}
    states = run(**rows, lengths=(lengths, n_padding)).last_hidden_state
    hidden = states.new_zeros(*real.shape, states.shape[-1])
    hidden = hidden.masked_scatter(real[..., None], states[0, : sum(lengths)])
    pooler = getattr(body, "pooler", None)
    return BaseModelOutputWithPoolingAndCrossAttentions(
        last_hidden_state=hidden, pooler_output=None if pooler is None else pooler(hidden)
    )


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    lengths: tuple[list[int], int],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each sequence; an ``AttentionInterface``.

    :param query: `(1, heads, tokens, head_dim)`, like ``key`` and ``value``.
    :param lengths: of the sequences, and how many rows of padding follow them.
    :param sliding_window: a token sees those that are fewer than this many tokens away.
    :returns: `(1, tokens, heads, head_dim)`, and no weights.
    """
    of_sequences, n_padding = lengths
    dtype = query.dtype
    is_cpu = query.device.type == "cpu"
    if is_cpu:
        # the CPU's kernel is several times as fast in float32, conversions included
        query, key, value = query.float(), key.float(), value.float()
    parts = [states.split([*of_sequences, n_padding], 2) for states in (query, key, value)]
    attended = []
    for length, q, k, v in zip(of_sequences, *parts, strict=False):
        seen = None
        if sliding_window is not None and length > sliding_window:
            positions = torch.arange(length, device=query.device)
            seen = (positions[:, None] - positions).abs() < sliding_window
        # autocast would turn them back to half precision
        with torch.autocast("cpu", enabled=False) if is_cpu else nullcontext():
            attended.append(
                scaled_dot_product_attention(
                    q,
                    k,
                    v,
                    attn_mask=seen,
                    scale=scaling,
                    dropout_p=dropout if module.training else 0.0,
                )
            )
    attended.append(torch.zeros_like(parts[0][-1]))
    return torch.cat(attended, 2).transpose(1, 2).to(dtype), None
