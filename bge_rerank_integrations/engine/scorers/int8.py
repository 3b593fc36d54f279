"""Linear layers with 8-bit operands on the CPU: weights by output, activations by token.

A weight matrix is rounded once, with a scale for each output. Each row of activations is rounded as
it comes, over its own range: single tokens have values far beyond all others', and one scale for
a whole batch would leave the others no precision. Single columns have such values too; they are
divided by a factor, and the weights that meet them are multiplied by it (Xiao et al., SmoothQuant,
arXiv 2211.10438). The factors come from a pass over sample texts when the model is loaded: from
the root mean square of a column, where the paper takes its largest value. That shares the error
evenly between weights and activations.

The operators are oneDNN's product and FBGEMM's rowwise quantization, which are in torch's wheels;
nothing is compiled.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.functional import pad

from ...errors import ModelLoadError
from .linear import Linear, PlainLinear

# a quantized row ends with its scale and its least value, each a float32
_ROW_END = 8
_LARGEST_ROUNDED = 255
# weights from -127 to 127; or, where the sum of two products saturates at 16 bits, as in the
# instructions before VNNI, from -64 to 64: 2 * 255 * 64 is below 2 ** 15
_WEIGHT_LEVELS = (127, 64)
# a column whose mean square is a smaller share of all columns' counts as one of this share: sample
# texts do not show all that it can hold
_SMALLEST_SHARE = 0.01
# for a layer whose weights, or whose inputs on the sample texts, are all 0
_SMALLEST_SQUARE = 1e-12


@cache
def weight_levels() -> int | None:
    """The largest rounded weight whose products are exact on this CPU; None if there is none.

    On a CPU with VNNI it is 127, on one that has only AVX2 it is 64.
    """
    return next(filter(_is_exact, _WEIGHT_LEVELS), None)


def _is_exact(levels: int) -> bool:
    # enough inputs for the blocked kernels
    weight = torch.full((64, 256), float(levels))
    weight[1::2] = -levels
    rows = torch.full((64, 256), float(_LARGEST_ROUNDED))
    rows[:, ::4] = 0
    try:
        product = Int8Linear(weight, None, torch.ones(256), levels)(rows)
    # torch reports a missing operator by AttributeError, a missing instruction by RuntimeError
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(product, rows @ weight.T, rtol=1e-5)


class Int8Linear:
    """A linear layer whose product is of 8-bit integers; a :class:`~.linear.Linear`.

    :param weight: `(outputs, inputs)` float32; inputs a multiple of 4.
    :param bias: `(outputs,)` float32, or None.
    :param factors: what each column of the inputs is divided by, `(inputs,)`.
    :param levels: the largest rounded weight.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, factors: torch.Tensor, levels: int
    ) -> None:
        weight = weight * factors
        scales = weight.abs().amax(1) / levels
        # an output whose weights are all 0
        scales[scales == 0] = 1
        rounded = (weight / scales.unsqueeze(1)).round_()
        self._inverse_factors = 1 / factors
        self._scales = scales
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = torch.zeros(len(weight)) if bias is None else bias
        # what a row's least value is multiplied by
        self._sums = rounded.sum(1).mul_(scales)
        # the end of a row meets weights of 0
        padded = pad(rounded.to(torch.int8), (0, _ROW_END))
        self._weight = torch.ops.onednn.qlinear_prepack(padded, None)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        product, scale, least = self._product(rows)
        # in place, here and below: the built-in model is 1.2 times as fast as with fresh results
        torch.addcmul(self._bias, product, scale, out=product)
        return product.addcmul_(least, self._sums)

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        states = self(rows)
        torch.ops.aten.gelu_(states)
        return states

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        product, scale, least = self._product(rows)
        torch.addcmul(residual, product, scale, out=product)
        return product.addcmul_(least, self._sums).add_(self._bias)

    def multiply(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self(rows).mul_(factor)

    def _product(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The product of the rounded rows `(tokens, outputs)`, their scales and least values.

        A row is ``scale * rounded + least``; scales and least values are `(tokens, 1)`.
        """
        quantized = torch.ops.quantized.embedding_bag_byte_prepack(rows * self._inverse_factors)
        product = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, 0, self._weight, self._scales, self._zeros, None,
            1.0, 0, torch.float32, "none", [], "none",
        )  # fmt: skip
        scale, least = quantized[:, -_ROW_END:].view(torch.float32).split(1, 1)
        return product, scale, least


class Int8Layers:
    """Makes a model's layers, which compute in float32 until :meth:`quantize`."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []

    def make(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """A layer that keeps in mind what it reads.

        :raises ModelLoadError: for a weight that is no finite number.
        """
        if not weight.isfinite().all():
            raise ModelLoadError(
                'dtype="int8" needs finite weights, and the checkpoint has NaN or infinity'
            )
        self._layers.append(_Layer(weight, bias))
        return self._layers[-1]

    def quantize(self) -> None:
        """Quantize, calibrated on the inputs seen so far.

        :raises RuntimeError: if :func:`weight_levels` is None.
        """
        levels = weight_levels()
        if levels is None:
            raise RuntimeError("there is no exact 8-bit product here")
        for layer in self._layers:
            layer.quantize(levels)


class _Layer:
    """A layer in float32 at first, then in 8 bits; a :class:`~.linear.Linear`."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._now: Linear = _ObservedLinear(weight, bias)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._now(rows)

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        return self._now.gelu(rows)

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self._now.add(rows, residual)

    def multiply(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self._now.multiply(rows, factor)

    def quantize(self, levels: int) -> None:
        assert isinstance(self._now, _ObservedLinear)
        self._now = self._now.in_int8(levels)


class _ObservedLinear(PlainLinear):
    """A layer in float32 that sums the squares of each of its inputs."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        self._squares = torch.zeros(weight.shape[1])

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        # attention may compute in bfloat16
        rows = rows.float()
        self._squares += rows.square().sum(0)
        return super().__call__(rows)

    def in_int8(self, levels: int) -> Int8Linear:
        """The same layer in 8 bits.

        :param levels: the largest rounded weight.
        """
        activations, weights = (
            squares.clamp_min(_SMALLEST_SHARE * squares.mean()) + _SMALLEST_SQUARE
            for squares in (self._squares, self._weight.square().sum(0))
        )
        # a factor common to all columns changes nothing: sums do for means
        factors = (activations / weights) ** 0.25
        return Int8Linear(self._weight, self._bias, factors, levels)
