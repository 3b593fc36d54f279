"""Training without padding: a transformers encoder whose layers see real tokens alone.

The encoder's own layers run, with their gradients; only what lies around them changes. Tokens of
all sequences go through them one behind the other, `(1, tokens)`, and attention, which transformers
lets a library provide (`AttentionInterface`), keeps to each sequence. The result is laid out again
as the caller expects it, so that pooling, heads and losses are those of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

_NAME = "bge_rerank_packed"
# sequences of like length share a padded group; on a CPU, oneDNN keeps a compiled matmul for every
# shape, so groups' lengths and the number of rows are rounded up
_GROUP = 8
_LENGTH_MULTIPLE = 32
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

    Plain matmuls: the backward pass of torch's kernel is slow on a CPU.

    :param query: `(1, heads, tokens, head_dim)`, like ``key`` and ``value``.
    :param lengths: of the sequences, and how many rows of padding follow them.
    :param sliding_window: a token sees those that are fewer than this many tokens away.
    :returns: `(1, tokens, heads, head_dim)`, and no weights.
    """
    of_sequences, n_padding = lengths
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # per sequence `(length, heads, head_dim)`
    queries, keys, values = (
        states[0].transpose(0, 1).split([*of_sequences, n_padding])
        for states in (query * scale, key, value)
    )
    by_length = sorted(range(len(of_sequences)), key=of_sequences.__getitem__)
    attended = [query.new_empty(0)] * len(of_sequences)
    for first in range(0, len(by_length), _GROUP):
        group = by_length[first : first + _GROUP]
        q, k, v = (_padded([part[i] for i in group]) for part in (queries, keys, values))
        positions = torch.arange(k.shape[2], device=k.device)
        ends = torch.tensor([of_sequences[i] for i in group], device=k.device)
        seen = (positions < ends[:, None])[:, None, None]
        if sliding_window is not None:
            distance = (positions[:, None] - positions).abs()
            # padding queries see something too: a softmax over nothing has no gradient
            seen = seen & (distance < sliding_window) | (distance == 0)
        scores = (q @ k.transpose(-1, -2)).masked_fill(~seen, torch.finfo(q.dtype).min)
        weights = drop(scores.softmax(-1), dropout, training=module.training)
        for row, i in zip((weights @ v).transpose(1, 2), group, strict=True):
            attended[i] = row[: of_sequences[i]]
    padding = torch.zeros_like(queries[-1])
    return torch.cat([*attended, padding])[None], None


def _padded(sequences: list[torch.Tensor]) -> torch.Tensor:
    """`(length, heads, head_dim)` each → `(sequences, heads, longest, head_dim)`."""
    padded = pad_sequence(sequences, batch_first=True)
    missing = -padded.shape[1] % _LENGTH_MULTIPLE
    return pad(padded, (0, 0, 0, 0, 0, missing)).transpose(1, 2)
