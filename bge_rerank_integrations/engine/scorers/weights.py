"""A checkpoint's tensors → layers; files are mapped, and tensors read and moved one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelLoadError
from .linear import Linear, Norm, make_linear, make_norm
from .stored_tensors import StoredTensor, open_tensors

# numbers of a config.json that transformers allocates layers and tensors for
_LAYERS = re.compile(r"num_((hidden|encoder|decoder)_)?layers|n_layers?|(en|de)coder_layers")
_SIZE = re.compile(
    r"(vocab|hidden|(moe_)?intermediate|type_vocab|embedding)_size|num_(attention|key_value)_heads"
    r"|num_(local_)?experts|n_routed_experts|n_heads?|n_embd|n_inner|(head_|hidden_)?dim|d_model"
    r"|d_ff|(en|de)coder_ffn_dim|ffn_dim"
)
# parts of a config.json that describe layers themselves
_CONFIG_PARTS = ("text_config", "encoder", "decoder")
# what may stand before a name, or be left out of it: transformers' `base_model_prefix`
_BODIES = ("bert.", "roberta.", "model.")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "base_model.model.")
# others are numbers only together with scales, which quantizers keep each in their own way
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_STORED_FLOATS = ("F16", "BF16", "F32", "F64")

# transformers' part of a name, and what flash-attention has for it; longer parts before those they
# end in
_FLASH_NAMES = {
    "embeddings.LayerNorm.": "emb_ln.",
    "encoder.layer.": "encoder.layers.",
    "attention.output.LayerNorm.": "norm1.",
    "attention.output.dense.": "mixer.out_proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.LayerNorm.": "norm2.",
    "output.dense.": "mlp.fc2.",
}
_JOINED = {f"attention.self.{part}.": n for n, part in enumerate(("query", "key", "value"))}

MakeLinear = Callable[[torch.Tensor, "torch.Tensor | None"], Linear]


class WeightFiles:
    """The tensors of a checkpoint by their names.

    :param folder: named in messages.
    :param tensors: those of the checkpoint; None: of the folder's files.
    :raises ModelLoadError: if a file is missing, cut off or no safetensors.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, StoredTensor] | None = None) -> None:
        self.folder = folder
        self.tensors = open_tensors(folder) if tensors is None else tensors

    def __contains__(self, name: str) -> bool:
        return self._stored(name) in self.tensors

    def count(self) -> int:
        """The number of parameters."""
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
                if name in _CONFIG_PARTS:
                    self.check_sizes(value)
                continue
            limit = len(shapes) if _LAYERS.fullmatch(name) else largest
            if isinstance(value, int) and value > limit and _is_size(name):
                raise ModelLoadError(
                    f"{self.folder.name}: config.json says {name} {value}, and the weights "
                    f"have {len(shapes)} tensors of at most {largest} rows or columns"
                )

    def check_numbers(self) -> None:
        """Refuse weights that are numbers only together with scales, which other tensors hold.

        :raises ModelLoadError: naming a tensor that is quantized.
        """
        for name, tensor in self.tensors.items():
            kind = tensor.get_dtype()
            if name.endswith(".weight") and kind not in _STORED_FLOATS:
                raise ModelLoadError(
                    f"{self.folder.name}: {name} is {kind}, and weights must be floating point: a "
                    "checkpoint that is quantized already cannot be read"
                )

    def _shapes(self) -> list[list[int]]:
        return [tensor.get_shape() for tensor in self.tensors.values()]

    def _stored(self, name: str) -> str:
        """The name in the checkpoint, where a body that was saved by itself has no prefix."""
        if name not in self.tensors:
            for body in _BODIES:
                if name.startswith(body) and name.removeprefix(body) in self.tensors:
                    return name.removeprefix(body)
        return name

    def read(self, name: str, shape: Sequence[int | None]) -> torch.Tensor:
        """One tensor as it is stored; its memory is the mapped file.

        :param shape: what it must be; None where any size will do.
        :raises ModelLoadError: if it is missing, of another shape or quantized.
        """
        stored = self._stored(name)
        if stored not in self.tensors:
            raise ModelLoadError(
                f"{self.folder.name} is incomplete: tensor {stored} is missing" + self._hint(name)
            )
        tensor = self.tensors[stored][...]
        if len(tensor.shape) != len(shape) or any(
            expected not in (None, size) for size, expected in zip(tensor.shape, shape, strict=True)
        ):
            raise ModelLoadError(
                f"{self.folder.name}: {stored} is of another shape than config.json says: "
                f"{tuple(tensor.shape)} instead of {tuple(shape)}"
            )
        check_float(tensor, f"{self.folder.name}: {stored}")
        return tensor

    def read_row(self, names: Sequence[str], row: int) -> torch.Tensor:
        """One row of the first of these tensors that there is, `(columns,)`.

        :raises ModelLoadError: if there is none of them.
        """
        for name in names:
            if name in self:
                return self.tensors[self._stored(name)][row : row + 1][0]
        raise ModelLoadError(
            f"{self.folder.name} has no weights {' or '.join(names)} for its scores"
        )

    def _hint(self, name: str) -> str:
        """What to do about names that a trainer's wrapper has put a prefix before."""
        wrapped = [wrapper for wrapper in _WRAPPERS if wrapper + name in self.tensors]
        if not wrapped:
            return ""
        return f", and {wrapped[0]}{name} is there: bge-rerank convert removes such a prefix"


def _is_size(name: str) -> bool:
    return bool(_LAYERS.fullmatch(name) or _SIZE.fullmatch(name))


def check_float(tensor: torch.Tensor, what: str) -> None:
    """Refuse a tensor that is quantized.

    :param what: it is, for the message.
    :raises ModelLoadError: if its numbers are no floating-point numbers.
    """
    if tensor.dtype not in _FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelLoadError(
            f"{what} is {kind}, and weights must be floating point: a checkpoint that is "
            "quantized already cannot be read"
        )


class FlashWeightFiles(WeightFiles):
    """XLM-R's tensors under the names of flash-attention's BERT, as jina-reranker-v2 stores them.

    Names: `convert_roberta_weights_to_flash.py` of jinaai/xlm-roberta-flash-implementation. Query,
    key and value are one tensor there; all else has transformers' shapes, and the layers are the
    same.
    """

    def read(self, name: str, shape: Sequence[int | None]) -> torch.Tensor:
        """One tensor, or its third of a joined one; errors as in :class:`WeightFiles`."""
        number = next((n for part, n in _JOINED.items() if part in name), None)
        size = shape[0]
        if number is None or size is None:
            return super().read(name, shape)
        joined = super().read(name, (3 * size, *shape[1:]))
        return joined[number * size : (number + 1) * size]

    def _stored(self, name: str) -> str:
        for part, stored in _FLASH_NAMES.items():
            name = name.replace(part, stored)
        for part in _JOINED:
            name = name.replace(part, "mixer.Wqkv.")
        return super()._stored(name)


class Weights:
    """A module's tensors by their names within it, on a device and in a precision.

    :param files: the checkpoint's.
    :param prefix: the module's name in the checkpoint.
    :param make_linear: a weight and a bias → a linear layer.
    :param attention_dtype: what attention computes in; None: the precision of all else.
    """

    def __init__(
        self,
        files: WeightFiles,
        device: torch.device,
        dtype: torch.dtype,
        prefix: str = "",
        make_linear: MakeLinear = make_linear,
        attention_dtype: torch.dtype | None = None,
    ) -> None:
        self._files = files
        self.device = device
        self._dtype = dtype
        self._prefix = prefix
        self.make_linear = make_linear
        self.attention_dtype = attention_dtype or dtype

    def module(self, name: str) -> Weights:
        """Those of a module within this one."""
        return Weights(
            self._files,
            self.device,
            self._dtype,
            f"{self._prefix}{name}.",
            self.make_linear,
            self.attention_dtype,
        )

    def in_float32(self) -> Weights:
        """A float32 view, with unquantized linear layers."""
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
        """A layer normalization."""
        weight = self.read(f"{name}.weight", size)
        return make_norm(weight, self.read(f"{name}.bias", size) if bias else None, eps)
