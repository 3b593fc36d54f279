"""sentence-transformers' modules behind a pooling: from their files to functions of states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, normalize

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.scorers.heads import ACTIVATIONS, activation_name
from bge_rerank_integrations.engine.scorers.weights import WeightFiles, Weights
from bge_rerank_integrations.errors import ModelLoadError, UnsupportedModelError

States = Callable[[torch.Tensor], torch.Tensor]

# torch's default, which sentence-transformers' LayerNorm has
_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer, an activation and, where it has one, a residual sum."""

    inputs: int
    outputs: int
    has_bias: bool
    activation: str
    has_residual: bool

    def load(self, weights: Weights) -> States:
        """The layer, `(n, inputs)` → `(n, outputs)`.

        :raises ModelLoadError: if a tensor is missing or of another shape.
        """
        activation = ACTIVATIONS[self.activation]
        weight = weights.read("linear.weight", self.outputs, self.inputs)
        bias = weights.read("linear.bias", self.outputs) if self.has_bias else None
        if not self.has_residual:
            return lambda states: activation(linear(states, weight, bias))
        if self.inputs == self.outputs:
            return lambda states: activation(linear(states, weight, bias)) + states
        residual = weights.read("residual.weight", self.outputs, self.inputs)
        return lambda states: activation(linear(states, weight, bias)) + linear(states, residual)

    def __str__(self) -> str:
        return f"Dense({self.inputs}, {self.outputs}, {self.activation})"


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """A layer normalization."""

    size: int

    def load(self, weights: Weights) -> States:
        """The norm, `(n, size)` → `(n, size)`.

        :raises ModelLoadError: if a tensor is missing or of another shape.
        """
        return weights.norm("norm", self.size, _LAYER_NORM_EPS).__call__

    def __str__(self) -> str:
        return f"LayerNorm({self.size})"


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scaling to unit length."""

    def load(self, _: Weights) -> States:
        """The scaling, `(n, size)` → `(n, size)`."""
        return normalize

    def __str__(self) -> str:
        return "Normalize"


@dataclass(frozen=True, slots=True)
class HeadModule:
    """One module and the folder of its files."""

    folder: str
    kind: Dense | LayerNorm | Normalize

    def load(self, checkpoint: Checkpoint, device: torch.device) -> States:
        """The module on a device, in float32.

        :raises ModelLoadError: if its weights are missing, or of another shape than its config's.
        """
        if not isinstance(self.kind, Normalize):
            checkpoint.require_safetensors(self.folder)
        files = WeightFiles(checkpoint.folder / self.folder)
        return self.kind.load(Weights(files, device, torch.float32))

    def __str__(self) -> str:
        return str(self.kind)


HEAD_MODULES = ("Dense", "LayerNorm", "Normalize", "Dropout")


def read_head_module(
    checkpoint: Checkpoint, kind: str, folder: str, reads: str, width: Any
) -> tuple[HeadModule | None, str, Any]:
    """Read one module's config.

    :param kind: one of ``HEAD_MODULES``.
    :param folder: of its files.
    :param reads: name of the states that the module before it has made.
    :param width: their size; None where it is not known.
    :returns: the module, or None for one that does nothing; name and size of the states it makes.
    :raises ModelLoadError: if it does not fit what it reads.
    :raises UnsupportedModelError: if it reads or makes something else.
    """
    file = f"{checkpoint.folder.name}/{folder}/config.json"
    if kind == "Dropout":
        return None, reads, width
    # sentence-transformers writes none for a module without settings
    config = checkpoint.read_json(f"{folder}/config.json")
    made = _made(config, reads, file)
    if kind == "Normalize":
        return HeadModule(folder, Normalize()), made, width
    if kind == "LayerNorm":
        size = _size(config, "dimension", width, file)
        return HeadModule(folder, LayerNorm(size)), made, width
    inputs, outputs = (
        _size(config, name, expected, file)
        for name, expected in (("in_features", width), ("out_features", None))
    )
    path = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    dense = Dense(
        inputs,
        outputs,
        bool(config.get("bias", True)),
        activation_name(path, ACTIVATIONS, file),
        bool(config.get("use_residual", False)),
    )
    return HeadModule(folder, dense), made, outputs


def _made(config: dict[str, Any], reads: str, file: str) -> str:
    """Name of the states that a module makes of those named ``reads``."""
    name = config.get("module_input_name", "sentence_embedding")
    if name != reads:
        raise UnsupportedModelError(f"{file} reads {name!r}, and the module before makes {reads!r}")
    return str(config.get("module_output_name") or name)


def _size(config: dict[str, Any], name: str, expected: int | None, file: str) -> int:
    size = config.get(name)
    if not isinstance(size, int) or size < 1 or expected not in (None, size):
        what = "a positive int" if expected is None else f"{expected}, as many as it reads"
        raise ModelLoadError(f"{file}: {name} must be {what}, got {size!r}")
    return size
