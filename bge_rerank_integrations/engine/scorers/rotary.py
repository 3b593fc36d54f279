"""Rotary position embeddings of packed sequences.

A head's dimensions i and i + head_dim / 2 turn together. :func:`paired_order` puts them side by
side when weights are read, so that a pair is one complex number and a rotation one product. Dot
products of queries and keys stay the same: both are reordered alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bge_rerank_integrations.engine.scorers.packing import positions_of, upload


def paired_order(heads: int, head_dim: int) -> torch.Tensor:
    """Rows of a query's or key's weights, so that dimensions that turn together are neighbors.

    :returns: `(heads * head_dim,)` int64.
    """
    rows = torch.arange(heads * head_dim).view(heads, 2, head_dim // 2)
    return rows.transpose(1, 2).flatten()


def rotations(
    lengths: Sequence[int], n_padding: int, head_dim: int, theta: float, device: torch.device
) -> torch.Tensor:
    """Rotation of each token by its position in its sequence, as transformers' default RoPE.

    :param lengths: the packed sequences' lengths.
    :param n_padding: rows behind them.
    :param theta: base of the frequencies.
    :returns: complex64, `(tokens, 1, head_dim / 2)`.
    """
    positions = upload(torch.from_numpy(positions_of([*lengths, n_padding])), device)
    dimensions = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    angles = positions.float().unsqueeze(1) * (1.0 / theta ** (dimensions / head_dim))
    return torch.polar(torch.ones_like(angles), angles).unsqueeze(1)


def rotate(states: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys, computed in float32; what is float32 already is changed in place.

    :param states: `(tokens, heads, head_dim)` in :func:`paired_order`.
    :param rotation: of :func:`rotations`.
    """
    pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(rotation)).flatten(-2).to(states.dtype)
