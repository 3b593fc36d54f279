"""Linear layers and norms with fixed weights, and the fastest of each for a device.

On the CPU, torch hands float32 matmuls to MKL, which is slow on AMD, and has oneDNN lay bfloat16
weights out anew at every call. `torch.ops.mkldnn` (what TorchInductor compiles to) does it once,
and computes what follows, such as the residual sum, while the result is still in registers. The
results are exact. On CUDA in half precision, what memory bounds is computed in the product's
epilogue or by a kernel of our own: see ``kernels``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple, Protocol

import torch
from torch.nn.functional import gelu, layer_norm, linear

# the token count that the layout is chosen for; any other count is as correct, and near as fast
_TYPICAL_TOKENS = 1_024

# without AVX-512, oneDNN's GELU takes ten times as long as torch's
_FUSES_GELU = torch.backends.cpu.get_cpu_capability() != "AVX2"

# oneDNN caches one compiled matmul per row count, Metal's graphs one of every operator per shape
_CACHE_SHAPES = ("cpu", "mps")
_ROW_MULTIPLE = 64
_SMALL_ROW_MULTIPLE = 16


def n_padding_rows(rows: int, device: torch.device) -> int:
    """Padding rows that round ``rows`` up to a multiple, so that few shapes are cached.

    :returns: 0 on every device but a CPU and Apple's GPU.
    """
    if device.type not in _CACHE_SHAPES:
        return 0
    return -rows % (_ROW_MULTIPLE if rows > _ROW_MULTIPLE else _SMALL_ROW_MULTIPLE)


class Norm(NamedTuple):
    """Layer normalization over the last dimension."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps)

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The norm of ``rows + residual``, all `(tokens, hidden)`; ``rows`` may change."""
        return self(rows.add_(residual))

    def of_sum(self, layer: Linear, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The norm of ``layer(rows) + residual``, `(tokens, outputs)`."""
        return self(layer.add(rows, residual))

    def sum_and_norm(
        self, layer: Linear, rows: torch.Tensor, residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``layer(rows) + residual`` and its norm, both `(tokens, outputs)`."""
        total = layer.add(rows, residual)
        return total, self(total)


class Linear(Protocol):
    """``rows @ weight.T + bias``, alone or with what follows it."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`(tokens, inputs)` → `(tokens, outputs)`."""
        ...

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        """GELU of the result, `(tokens, outputs)`.

        By the error function; on CUDA in half precision by tanh, which differs by less than
        bfloat16 rounds.
        """
        ...

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The result plus ``residual``, both `(tokens, outputs)`."""
        ...

    def multiply(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The result times ``factor``, both `(tokens, outputs)`."""
        ...


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """The fastest layer that this device and this torch have for these weights.

    :param weight: `(outputs, inputs)`.
    :param bias: `(outputs,)`, or None.
    """
    if weight.device.type == "cpu" and has_prepacked(weight.dtype):
        return PrepackedLinear(weight, bias)
    if _is_half_on_cuda(weight) and bias is not None:
        return GeluLinear(weight, bias)
    return PlainLinear(weight, bias)


def make_norm(weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> Norm:
    """A layer normalization, which adds residuals itself where :func:`has_kernels`.

    :param weight: `(hidden,)`, like ``bias``.
    """
    if has_kernels(weight):
        from .kernels import FusedNorm

        return FusedNorm(weight, bias, eps)
    return Norm(weight, bias, eps)


def has_kernels(weight: torch.Tensor) -> bool:
    """Whether there are kernels of our own for weights like this one: on CUDA in half precision."""
    if not _is_half_on_cuda(weight) or find_spec("triton") is None:
        return False
    from .kernels import is_available

    return is_available(weight.device)


def _is_half_on_cuda(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda and tensor.dtype in (torch.bfloat16, torch.float16)


class PlainLinear:
    """torch's own operators, on any device."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return linear(rows, self._weight, self._bias)

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        return gelu(self(rows))

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self(rows).add_(residual)

    def multiply(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self(rows).mul_(factor)


class GeluLinear(PlainLinear):
    """A layer whose GELU is computed in the product's epilogue, on CUDA in half precision."""

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        assert self._bias is not None
        return torch._addmm_activation(self._bias, rows, self._weight.t(), use_gelu=True)


class PrepackedLinear:
    """oneDNN's operators on weights in oneDNN's own layout, on the CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_TOKENS)
        self._bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._run(rows, "none")

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        return self._run(rows, "gelu") if _FUSES_GELU else gelu(self(rows))

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self._run_with(rows, residual, "add")

    def multiply(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self._run_with(rows, factor, "mul")

    def _run(self, rows: torch.Tensor, activation: str) -> torch.Tensor:
        # the last "none": GELU without its approximation by tanh
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, activation, [], "none"
        )
        return result

    def _run_with(self, rows: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            rows, other, self._weight, self._bias, operation
        )
        return result


def has_prepacked(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, and this CPU computes with them in this precision."""
    if not torch.backends.mkldnn.is_available():
        return False
    probe = torch.ones((2, 2), dtype=dtype)
    try:
        layer = PrepackedLinear(probe, probe[0])
        layer.multiply(layer.add(probe, probe), probe)
    # torch reports a missing operator by AttributeError, a missing instruction by RuntimeError
    except (AttributeError, RuntimeError):
        return False
    return True
