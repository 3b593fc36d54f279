"""A checkpoint's tensors → layers, read, converted and moved one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch.nn.functional import layer_norm

from bge_rerank_integrations.engine.scorers.linear import Linear, make_linear


class Stored(Protocol):
    """Where tensors are read from."""

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str, shape: Sequence[int | None]) -> torch.Tensor:
        """The tensor of that name, which must have that shape."""
        ...


class Norm(NamedTuple):
    """Layer normalization over the last dimension."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps)


class Parameters:
    """A module's tensors by their names within it, on a device and in a precision.

    :param stored: the checkpoint.
    :param prefix: the module's name in the checkpoint.
    """

    def __init__(
        self, stored: Stored, device: torch.device, dtype: torch.dtype, prefix: str = ""
    ) -> None:
        self._stored = stored
        self.device = device
        self._dtype = dtype
        self._prefix = prefix

    def module(self, name: str) -> Parameters:
        """Those of a module within this one."""
        return Parameters(self._stored, self.device, self._dtype, f"{self._prefix}{name}.")

    def in_float32(self) -> Parameters:
        """The same ones in full precision."""
        return Parameters(self._stored, self.device, torch.float32, self._prefix)

    def read(self, name: str, *shape: int | None) -> torch.Tensor:
        """One tensor.

        :raises ModelLoadError: if it is missing or of another shape.
        """
        stored = self._stored.read(self._prefix + name, shape)
        return stored.to(self.device, self._dtype)

    def linear(self, inputs: int, outputs: int, *names: str) -> Linear:
        """One linear layer with the outputs of all these, one after the other."""
        weights = [self.read(f"{name}.weight", outputs, inputs) for name in names]
        biases = [self.read(f"{name}.bias", outputs) for name in names]
        if len(names) == 1:
            # joined with nothing, they would still be copied
            return make_linear(weights[0], biases[0])
        return make_linear(torch.cat(weights), torch.cat(biases))

    def norm(self, name: str, size: int, eps: float) -> Norm:
        """A layer normalization; checkpoints from TensorFlow call its tensors gamma and beta."""
        weight, bias = ("weight", "bias")
        if f"{self._prefix}{name}.gamma" in self._stored:
            weight, bias = ("gamma", "beta")
        return Norm(self.read(f"{name}.{weight}", size), self.read(f"{name}.{bias}", size), eps)
