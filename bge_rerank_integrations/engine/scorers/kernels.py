"""Triton kernels for what lies between the products, on CUDA in half precision.

Each joins operators that would read and write all states once more: a residual sum with its norm, a
gate with its activation, a rotation without complex numbers. They compute in float32 and round
once. torch's wheels for CUDA on Linux bring Triton, which compiles a kernel at its first use and
keeps it on disk; it needs a C compiler for that, which small container images lack.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import torch
import triton
from torch import nn
from triton import language as tl

from .linear import Linear, Norm

logger = logging.getLogger(__name__)

Activation = Literal["gelu", "gelu_tanh", "silu"]

# elements of a program: rows shorter than this share one
_TILE = 1_024
# of an activated gate; rows are cut into blocks of this many columns
_GATE_BLOCK = 1_024


@triton.jit(do_not_specialize=["n_rows"])
def norm_kernel(
    rows_ptr, residual_ptr, weight_ptr, bias_ptr, sum_ptr, normed_ptr, n_rows, n, eps,
    HAS_RESIDUAL: tl.constexpr, KEEPS_SUM: tl.constexpr, HAS_BIAS: tl.constexpr,
    IS_RMS: tl.constexpr, OFFSET: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Normalized rows, or rows plus residuals; a program has ``ROWS`` whole rows."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    is_column = columns < n
    is_there = (rows < n_rows) & is_column
    places = rows * n + columns
    states = tl.load(rows_ptr + places, mask=is_there, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        states += tl.load(residual_ptr + places, mask=is_there, other=0.0).to(tl.float32)
    if KEEPS_SUM:
        tl.store(sum_ptr + places, states.to(sum_ptr.dtype.element_ty), mask=is_there)
    if not IS_RMS:
        states = tl.where(is_column, states - tl.sum(states, axis=1)[:, None] / n, 0.0)
    variance = tl.sum(states * states, axis=1)[:, None] / n
    weight = tl.load(weight_ptr + columns, mask=is_column, other=0.0).to(tl.float32) + OFFSET
    normed = states * (1.0 / tl.sqrt(variance + eps)) * weight
    if HAS_BIAS:
        normed += tl.load(bias_ptr + columns, mask=is_column, other=0.0).to(tl.float32)
    tl.store(normed_ptr + places, normed.to(normed_ptr.dtype.element_ty), mask=is_there)


@triton.jit
def gate_kernel(
    gate_ptr, value_ptr, result_ptr, gate_stride, value_stride, n,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The activation of a row's gates, times its values."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_there = columns < n
    gate = tl.load(gate_ptr + row * gate_stride + columns, mask=is_there, other=0.0)
    value = tl.load(value_ptr + row * value_stride + columns, mask=is_there, other=0.0)
    gate = gate.to(tl.float32)
    if ACTIVATION == "gelu":
        active = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh x) / 2 = 1 / (1 + exp(-2 x)); an exponential that overflows gives 0
        twice = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
        active = gate / (1.0 + tl.exp(-twice))
    else:
        active = gate / (1.0 + tl.exp(-gate))
    result = active * value.to(tl.float32)
    tl.store(result_ptr + row * n + columns, result.to(result_ptr.dtype.element_ty), mask=is_there)


@triton.jit
def rotate_kernel(
    states_ptr, cosines_ptr, sines_ptr, states_stride, table_stride, heads,
    HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Turn all heads of one token in place; dimensions that turn together are neighbors."""
    token = tl.program_id(0).to(tl.int64)
    pairs = tl.arange(0, BLOCK)
    is_there = pairs < heads * HALF
    turns = token * table_stride + pairs % HALF
    cosine = tl.load(cosines_ptr + turns, mask=is_there, other=0.0).to(tl.float32)
    sine = tl.load(sines_ptr + turns, mask=is_there, other=0.0).to(tl.float32)
    own_ptr = states_ptr + token * states_stride
    # read as they lie, so that a thread's neighbors come in one access
    places = tl.arange(0, 2 * BLOCK)
    is_here = places < 2 * heads * HALF
    both = tl.load(own_ptr + places, mask=is_here, other=0.0).to(tl.float32)
    first, second = tl.split(tl.reshape(both, (BLOCK, 2)))
    turned = tl.join(first * cosine - second * sine, second * cosine + first * sine)
    kind = states_ptr.dtype.element_ty
    tl.store(own_ptr + places, tl.reshape(turned, (2 * BLOCK,)).to(kind), mask=is_here)


def launch(kernel: Any, grid: Sequence[int], *given: object, **constants: object) -> None:
    """Start a kernel on the current device's stream."""
    # said, because Triton 3.9 warns where it is not; later versions have another default
    kernel[tuple(grid)](*given, **constants, enable_fp_fusion=True)


@lru_cache
def is_available(device: torch.device) -> bool:
    """Whether Triton compiles for this device and starts what it compiled; if not, the log says so.

    :param device: of type cuda, with its number.
    """
    try:
        with torch.cuda.device(device):
            rows = torch.ones(2, 16, device=device, dtype=torch.float16)
            rms_norm(rows, rows[0], 1e-5)
            torch.cuda.synchronize(device)
    # a device that is too old, no C compiler, a cache folder that cannot be written: of many types
    except Exception as error:
        logger.warning("%s runs without Triton's kernels, and slower: %.300s", device, error)
        return False
    return True


class FusedNorm(Norm):
    """Layer normalization that adds the residual itself."""

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """As :meth:`Norm.add`; the sum is never rounded."""
        return _norm(rows, residual, self.weight, self.bias, self.eps)

    def of_sum(self, layer: Linear, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """As :meth:`Norm.of_sum`; the sum is never rounded."""
        return self.add(layer(rows), residual)

    def sum_and_norm(
        self, layer: Linear, rows: torch.Tensor, residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`Norm.sum_and_norm`."""
        added = layer(rows)
        # the layer's result is read before the sum takes its place
        return added, _norm(added, residual, self.weight, self.bias, self.eps, into=added)


def rms_norm(
    rows: torch.Tensor, weight: torch.Tensor, eps: float, offset: float = 0.0
) -> torch.Tensor:
    """Rows over their root mean square, times ``weight + offset``; `(..., n)` → `(..., n)`."""
    return _norm(rows, None, weight, None, eps, is_rms=True, offset=offset)


def _norm(
    rows: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    *,
    into: torch.Tensor | None = None,
    is_rms: bool = False,
    offset: float = 0.0,
) -> torch.Tensor:
    """The norm of rows, or of rows plus residuals, whose sum is written to ``into``."""
    rows = rows.contiguous()
    n = rows.shape[-1]
    n_rows = rows.numel() // n
    block = triton.next_power_of_2(n)
    together = max(1, _TILE // block)
    normed = torch.empty_like(rows)
    launch(
        norm_kernel,
        (triton.cdiv(n_rows, together),),
        rows,
        # where there is none, another stands for it and is not read
        rows if residual is None else residual.contiguous(),
        weight,
        weight if bias is None else bias,
        normed if into is None else into,
        normed,
        n_rows,
        n,
        eps,
        HAS_RESIDUAL=residual is not None,
        KEEPS_SUM=into is not None,
        HAS_BIAS=bias is not None,
        IS_RMS=is_rms,
        OFFSET=offset,
        ROWS=together,
        BLOCK=block,
        num_warps=4 if block <= 2 * _TILE else 8,
    )
    return normed


def activate_gate(
    gate: torch.Tensor, value: torch.Tensor, activation: Activation = "gelu"
) -> torch.Tensor:
    """``activation(gate) * value``.

    :param gate: `(tokens, n)`, like ``value``; rows may lie apart.
    :returns: `(tokens, n)`.
    """
    tokens, n = gate.shape
    result = gate.new_empty((tokens, n))
    launch(
        gate_kernel,
        (tokens, triton.cdiv(n, _GATE_BLOCK)),
        gate,
        value,
        result,
        gate.stride(0),
        value.stride(0),
        n,
        ACTIVATION=activation,
        BLOCK=_GATE_BLOCK,
        num_warps=4,
    )
    return result


def rotate_(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
    """Turn queries or keys by their positions, in place; neighboring dimensions turn together.

    :param states: `(tokens, heads, head_dim)`; tokens may lie apart.
    :param cosines: of each token's angles, `(tokens, head_dim / 2)`, like ``sines``.
    """
    tokens, heads, head_dim = states.shape
    half = head_dim // 2
    launch(
        rotate_kernel,
        (tokens,),
        states,
        cosines,
        sines,
        states.stride(0),
        cosines.stride(0),
        heads,
        HALF=half,
        BLOCK=triton.next_power_of_2(heads * half),
        num_warps=4,
    )


# classes of transformers' activations → what the gate's kernel computes
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def fuse_decoder(model: nn.Module) -> None:
    """Let a transformers decoder compute its RMS norms and its gates by these kernels.

    :param model: of one of the families that are packed; layers of other classes stay as they are.
    """
    from transformers.activations import ACT2FN

    kinds = {type(ACT2FN[name]): activation for name, activation in _ACTIVATIONS.items()}
    for module in model.modules():
        part: Any = module
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            eps = part.eps if hasattr(part, "eps") else part.variance_epsilon
            # Gemma's weights are what is added to 1
            offset = 1.0 if kind.startswith("Gemma") else 0.0
            part.forward = partial(rms_norm, weight=part.weight, eps=eps, offset=offset)
        elif kind.endswith("MLP") and type(part.act_fn) in kinds:
            part.forward = partial(_gated_unit, part, kinds[type(part.act_fn)])


def _gated_unit(module: Any, activation: Activation, states: torch.Tensor) -> torch.Tensor:
    """A decoder's feed-forward, `(1, tokens, hidden)`."""
    gate, value = (layer(states).squeeze(0) for layer in (module.gate_proj, module.up_proj))
    result: torch.Tensor = module.down_proj(activate_gate(gate, value, activation))
    return result.unsqueeze(0)
