"""ModernBERT: embeddings, layers and head over packed sequences.

Recipe: transformers, `models/modernbert/modeling_modernbert.py`. Norms stand before attention and
feed-forward, the feed-forward is a GELU-gated linear unit, and most layers attend within a window.

Positions are rotary: a head's dimensions i and i + head_dim / 2 turn together. :func:`paired_order`
puts them side by side when weights are read, so that a pair is one complex number and a rotation
one product; a kernel of our own, where there is one, turns both in place. Dot products of queries
and keys stay the same: both are reordered alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.functional import embedding

from ..tokenization.pairs import TokenSequence
from .attention import LocalAttention, Packing, packed_attention, positions_of, split_heads, upload
from .encoder_configs import LayerType, ModernBertConfig
from .heads import Head, Pooling, first_tokens, mean_pool
from .linear import Linear, Norm, has_kernels, n_padding_rows
from .weights import Weights

# query, key and value, each `(tokens, heads, head_dim)` → what the queries attend to
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class ModernBert:
    """Embeddings and layers; an :class:`~.encoder.EncoderBody`.

    :param weights: the body's, on the device and in the precision to compute in.
    :param config: its sizes.
    :param pooling: what becomes of the last layer's states.
    :raises ModelLoadError: if a tensor is missing or of another config.
    """

    def __init__(self, weights: Weights, config: ModernBertConfig, *, pooling: Pooling) -> None:
        hidden, eps, bias = config.hidden_size, config.norm_eps, config.norm_bias
        embeddings = weights.module("embeddings")
        self._device = weights.device
        self._config = config
        self._table = embeddings.read("tok_embeddings.weight", config.vocab_size, hidden)
        self._norm = embeddings.norm("norm", hidden, eps, bias=bias)
        # pooling first tokens, the last layer computes no others
        passed = len(config.layer_types) - (pooling == "cls")
        self._layers = [_Layer(weights, config, number) for number in range(passed)]
        self._last_layer = _FirstTokensLayer(weights, config, passed) if pooling == "cls" else None

    def __call__(self, batch: Sequence[TokenSequence]) -> torch.Tensor:
        """Pooled states `(n, hidden)`; on a CPU, padding rows follow."""
        config, device = self._config, self._device
        ids = np.concatenate([sequence.ids for sequence in batch])
        n_padding = n_padding_rows(len(ids), device)
        packing = Packing.from_lengths([len(sequence) for sequence in batch], device)
        form = partial(
            rotations,
            packing.lengths,
            n_padding,
            config.head_dim,
            device=device,
            as_complex=not has_kernels(self._table),
        )
        turns = {kind: form(theta) for kind, theta in config.rope_thetas.items()}
        attend: dict[LayerType, Attend] = {
            "full_attention": partial(
                packed_attention, queries=packing, keys=packing, scale=config.scale
            ),
            "sliding_attention": LocalAttention(packing, config.window, scale=config.scale),
        }
        rows = upload(torch.from_numpy(np.pad(ids, (0, n_padding))), device)
        # the first layer has no norm of its own, because the embeddings have one
        hidden = normed = self._norm(embedding(rows, self._table))
        for layer in self._layers:
            hidden, normed = layer.forward(hidden, normed, turns[layer.kind], attend[layer.kind])
        if self._last_layer is None:
            return mean_pool(normed, packing)
        last = self._last_layer
        return last.forward(hidden, normed, turns[last.kind], packing)


class _Block:
    """The part of a layer behind its attention, and the norm before the next one.

    :param weights: the body's.
    :param number: the layer's.
    """

    def __init__(self, weights: Weights, config: ModernBertConfig, number: int) -> None:
        hidden, wide = config.hidden_size, config.intermediate_size
        layer = weights.module(f"layers.{number}")
        self.kind = config.layer_types[number]
        self._heads = config.num_attention_heads
        self._attention_output = layer.linear(hidden, hidden, "attn.Wo", bias=config.attention_bias)
        self._mlp_norm = _norm(layer, "mlp_norm", config)
        stored = layer.read_linear("mlp.Wi", hidden, 2 * wide, bias=config.mlp_bias)
        self._gated_unit = _gated_unit(layer, stored, wide)
        self._output = layer.linear(wide, hidden, "mlp.Wo", bias=config.mlp_bias)
        is_last = number + 1 == len(config.layer_types)
        behind = "final_norm" if is_last else f"layers.{number + 1}.attn_norm"
        self._norm_behind = _norm(weights, behind, config)

    def _finish(
        self, attended: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output projection, feed-forward and their residual sums, and the norm of the last.

        :param attended: `(tokens, heads, head_dim)`.
        :param rows: the layer's input, `(tokens, hidden)`, like both results.
        """
        states, normed = self._mlp_norm.sum_and_norm(
            self._attention_output, attended.flatten(1), rows
        )
        return self._norm_behind.sum_and_norm(self._output, self._gated_unit(normed), states)


class _Layer(_Block):
    """A layer that every token passes."""

    def __init__(self, weights: Weights, config: ModernBertConfig, number: int) -> None:
        super().__init__(weights, config, number)
        self._query_key_value = weights.make_linear(*_attention_weights(weights, config, number))

    def forward(
        self, hidden: torch.Tensor, normed: torch.Tensor, rotation: torch.Tensor, attend: Attend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the packed tokens after this layer, and these normalized.

        :param hidden: `(tokens, hidden)`, like ``normed`` and both results.
        :param normed: what attention reads.
        """
        states = self._query_key_value(normed)
        query, key, value = split_and_turn(states, 3, self._heads, rotation)
        return self._finish(attend(query, key, value), hidden)


class _FirstTokensLayer(_Block):
    """The last layer: only first tokens are queries, and tokens that they see keys and values."""

    def __init__(self, weights: Weights, config: ModernBertConfig, number: int) -> None:
        super().__init__(weights, config, number)
        self._scale = config.scale
        self._seen = config.window + 1 if self.kind == "sliding_attention" else None
        stored, hidden = _attention_weights(weights, config, number), config.hidden_size
        self._query = _linear_of(weights, stored, slice(hidden))
        self._key_value = _linear_of(weights, stored, slice(hidden, None))

    def forward(
        self,
        hidden: torch.Tensor,
        normed: torch.Tensor,
        rotation: torch.Tensor,
        packing: Packing,
    ) -> torch.Tensor:
        """Normalized states of each sequence's first token; `(tokens, hidden)` → `(n, hidden)`.

        On a CPU, padding rows follow.
        """
        numbers, firsts = first_tokens(packing)
        # position 0 is the identity rotation
        (query,) = split_heads(self._query(normed[numbers]), 1, self._heads)
        if self._seen is not None:
            seen, packing = first_tokens(packing, self._seen)
            normed, rotation = normed[seen], rotation[seen]
        states = self._key_value(normed)
        key, value = split_and_turn(states, 2, self._heads, rotation)
        attended = packed_attention(query, key, value, firsts, packing, scale=self._scale)
        _, pooled = self._finish(attended, hidden[numbers])
        return pooled


def modernbert_head(weights: Weights, config: ModernBertConfig) -> Head:
    """The head of its sequence classification: a layer, GELU, a norm, another layer.

    :param weights: the whole checkpoint's.
    """
    hidden = config.hidden_size
    weights = weights.in_float32()
    head = weights.module("head")
    dense = head.linear(hidden, hidden, "dense", bias=config.classifier_bias)
    norm = head.norm("norm", hidden, config.norm_eps, bias=config.norm_bias)
    logits = weights.linear(hidden, 1, "classifier")
    return Head(config.classifier_pooling, (dense.gelu, norm.__call__, logits))


def _attention_weights(
    weights: Weights, config: ModernBertConfig, number: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a layer's query, key and value, the first two in rotary order."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    weight, bias = weights.read_linear(
        f"layers.{number}.attn.Wqkv", hidden, 3 * hidden, bias=config.attention_bias
    )
    paired = paired_order(2 * heads, config.head_dim)
    rows = torch.cat([paired, torch.arange(2 * hidden, 3 * hidden)])
    return weight[rows], None if bias is None else bias[rows]


def _linear_of(
    weights: Weights, stored: tuple[torch.Tensor, torch.Tensor | None], rows: slice
) -> Linear:
    """A layer with some of the outputs of a stored one."""
    weight, bias = stored
    return weights.make_linear(weight[rows], None if bias is None else bias[rows])


def _norm(weights: Weights, name: str, config: ModernBertConfig) -> Norm:
    return weights.norm(name, config.hidden_size, config.norm_eps, bias=config.norm_bias)


def _gated_unit(
    weights: Weights, stored: tuple[torch.Tensor, torch.Tensor | None], wide: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The GELU of the first half of a layer's outputs, times the other half."""
    if has_kernels(stored[0]):
        from .kernels import activate_gate

        joined = weights.make_linear(*stored)
        return lambda rows: activate_gate(*joined(rows).unflatten(1, (2, wide)).unbind(1))
    inputs = _linear_of(weights, stored, slice(wide))
    gate = _linear_of(weights, stored, slice(wide, None))
    return lambda rows: gate.multiply(rows, inputs.gelu(rows))


def paired_order(heads: int, head_dim: int) -> torch.Tensor:
    """Rows of a query's or key's weights, so that dimensions that turn together are neighbors.

    :returns: `(heads * head_dim,)` int64.
    """
    rows = torch.arange(heads * head_dim).view(heads, 2, head_dim // 2)
    return rows.transpose(1, 2).flatten()


def rotations(
    lengths: Sequence[int],
    n_padding: int,
    head_dim: int,
    theta: float,
    device: torch.device,
    *,
    as_complex: bool = True,
) -> torch.Tensor:
    """Rotation of each token by its position in its sequence, as transformers' default RoPE.

    :param lengths: the packed sequences' lengths.
    :param n_padding: rows behind them.
    :param theta: base of the frequencies.
    :returns: complex64, `(tokens, 1, head_dim / 2)`, or float32, `(tokens, 2, head_dim / 2)`:
        cosines and sines.
    """
    positions = upload(torch.from_numpy(positions_of([*lengths, n_padding])), device)
    dimensions = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    angles = positions.float().unsqueeze(1) * (1.0 / theta ** (dimensions / head_dim))
    if as_complex:
        return torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def split_and_turn(
    states: torch.Tensor, parts: int, heads: int, rotation: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Split queries, keys and values, and turn all but the values by their positions.

    :param states: `(tokens, parts * heads * head_dim)` in :func:`paired_order`; may change.
    :param rotation: of :func:`rotations`.
    :returns: the parts, `(tokens, heads, head_dim)` each.
    """
    if rotation.is_complex():
        *turned, value = split_heads(states, parts, heads)
        return (*(rotate(part, rotation) for part in turned), value)
    from .kernels import rotate_

    n_turned = (parts - 1) * heads
    turned_heads = states.unflatten(1, (parts * heads, -1)).narrow(1, 0, n_turned)
    rotate_(turned_heads, *rotation.unbind(1))
    return split_heads(states, parts, heads)


def rotate(states: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys, computed in float32; what is float32 already is changed in place.

    :param states: `(tokens, heads, head_dim)` in :func:`paired_order`.
    :param rotation: of :func:`rotations`.
    """
    pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(rotation)).flatten(-2).to(states.dtype)
