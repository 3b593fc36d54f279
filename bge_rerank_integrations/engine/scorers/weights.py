"""A checkpoint's tensors → layers; files are mapped, and tensors read and moved one by one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bge_rerank_integrations.engine.scorers.linear import Linear, Norm, make_linear
from bge_rerank_integrations.errors import ModelLoadError

# numbers of a config.json that something is allocated for
_SIZE = re.compile(r"num_\w+|\w+_size|n_(layers?|heads)|(\w+_)?dim")
_FILE_NAME = re.compile(r"[^/\\]+\.safetensors")
# others are numbers only together with scales, which quantizers keep each in their own way
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

MakeLinear = Callable[[torch.Tensor, "torch.Tensor | None"], Linear]


class WeightFiles:
    """The tensors in a folder's safetensors files.

    :raises ModelLoadError: if a file is missing, cut off or no safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Any] = {}
        try:
            for path in _paths(folder):
                file: Any = safe_open(path, framework="pt")
                self._file_of.update(dict.fromkeys(file.keys(), file))
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelLoadError(f"{folder.name}: the weights cannot be read: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def count(self) -> int:
        """How many numbers all tensors have together."""
        return sum(map(math.prod, self._shapes()))

    def check_sizes(self, config: Mapping[str, Any]) -> None:
        """Compare the sizes that ``config.json`` claims with the tensors, before any is allocated.

        :raises ModelLoadError: for a size above every dimension of every tensor, or for more
            layers than there are tensors.
        """
        shapes = self._shapes()
        largest = max((size for shape in shapes for size in shape), default=0)
        for name, value in config.items():
            if isinstance(value, Mapping):
                self.check_sizes(value)
            elif isinstance(value, int) and _SIZE.fullmatch(name):
                limit = len(shapes) if "layers" in name else largest
                if value > limit:
                    raise ModelLoadError(
                        f"{self.folder.name}: config.json says {name} {value}, and the weights "
                        f"have {len(shapes)} tensors of at most {largest} rows or columns"
                    )

    def _shapes(self) -> list[list[int]]:
        return [file.get_slice(name).get_shape() for name, file in sorted(self._file_of.items())]

    def read(self, name: str, shape: Sequence[int | None]) -> torch.Tensor:
        """One tensor as it is stored; its memory is the mapped file.

        :param shape: what it must be; None where any size will do.
        :raises ModelLoadError: if it is missing, of another shape or quantized.
        """
        if name not in self:
            raise ModelLoadError(f"{self.folder.name} is no complete checkpoint: {name} is missing")
        tensor: torch.Tensor = self._file_of[name].get_tensor(name)
        if len(tensor.shape) != len(shape) or any(
            expected not in (None, size) for size, expected in zip(tensor.shape, shape, strict=True)
        ):
            raise ModelLoadError(
                f"{self.folder.name}: {name} is of another shape than config.json says: "
                f"{tuple(tensor.shape)} instead of {tuple(shape)}"
            )
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelLoadError(
                f"{self.folder.name}: {name} is {kind}, and weights must be floating point: a "
                "checkpoint that is quantized already cannot be read"
            )
        return tensor

    def read_row(self, names: Sequence[str], row: int) -> torch.Tensor:
        """One row of the first of these tensors that there is, `(columns,)`.

        :raises ModelLoadError: if there is none of them.
        """
        for name in names:
            if name in self:
                values: torch.Tensor = self._file_of[name].get_slice(name)[row : row + 1]
                return values[0]
        raise ModelLoadError(
            f"{self.folder.name} has no weights {' or '.join(names)} for its scores"
        )


def _paths(folder: Path) -> list[Path]:
    """All files of the weights, read off the index of a checkpoint in several files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for name in names:
            # a file of another folder is not this checkpoint's
            if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
                raise ModelLoadError(f"{folder.name}: {index.name} names the file {name!r:.80}")
        return [folder / name for name in names]
    return sorted(folder.glob("*.safetensors"))


class Weights:
    """A module's tensors by their names within it, on a device and in a precision.

    :param files: the checkpoint's.
    :param prefix: the module's name in the checkpoint.
    :param make_linear: a weight and a bias → a linear layer.
    """

    def __init__(
        self,
        files: WeightFiles,
        device: torch.device,
        dtype: torch.dtype,
        prefix: str = "",
        make_linear: MakeLinear = make_linear,
    ) -> None:
        self._files = files
        self.device = device
        self._dtype = dtype
        self._prefix = prefix
        self.make_linear = make_linear

    def module(self, name: str) -> Weights:
        """Those of a module within this one."""
        return Weights(
            self._files, self.device, self._dtype, f"{self._prefix}{name}.", self.make_linear
        )

    def in_float32(self) -> Weights:
        """The same ones in full precision, with the layers that belong to it."""
        return Weights(self._files, self.device, torch.float32, self._prefix)

    def read(self, name: str, *shape: int | None) -> torch.Tensor:
        """One tensor.

        :raises ModelLoadError: if it is missing or of another shape.
        """
        tensor = self._files.read(self._prefix + name, shape)
        return tensor.to(self.device, self._dtype)

    def read_linear(
        self, name: str, inputs: int, outputs: int, *, bias: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A linear layer's weight `(outputs, inputs)` and, where it has one, its bias."""
        weight = self.read(f"{name}.weight", outputs, inputs)
        return weight, self.read(f"{name}.bias", outputs) if bias else None

    def linear(self, inputs: int, outputs: int, *names: str, bias: bool = True) -> Linear:
        """One linear layer with the outputs of all these, one after the other."""
        stored = [self.read_linear(name, inputs, outputs, bias=bias) for name in names]
        if len(stored) == 1:
            # joined with nothing, they would still be copied
            return self.make_linear(*stored[0])
        weights, biases = zip(*stored, strict=True)
        return self.make_linear(torch.cat(weights), torch.cat(biases) if bias else None)

    def norm(self, name: str, size: int, eps: float, *, bias: bool = True) -> Norm:
        """A layer normalization; checkpoints from TensorFlow call its tensors gamma and beta."""
        scale, shift = ("weight", "bias")
        if f"{self._prefix}{name}.gamma" in self._files:
            scale, shift = ("gamma", "beta")
        weight = self.read(f"{name}.{scale}", size)
        return Norm(weight, self.read(f"{name}.{shift}", size) if bias else None, eps)
