"""LoRA adapters as peft saves them: read beside their base, and merged while tensors are read.

An adapter's folder holds ``adapter_config.json`` and ``adapter_model.safetensors``. In the latter
are, by the names of the base's modules behind ``base_model.model.``: ``lora_A`` and ``lora_B``
(``lora_embedding_A`` and ``…_B``) of modules that were adapted, and whole tensors of modules that
were trained (``modules_to_save``: heads, and biases). The arithmetic is that of `LoraLayer.merge`
in peft's `tuners/lora`, in float32.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelLoadError, UnsupportedModelError
from ..scorers.stored_tensors import ADAPTER_WEIGHTS, StoredTensor, read_tensors
from ..scorers.weights import check_float
from .ledger import ADAPTER
from .no_checkpoint import CONVERT

ADAPTER_CONFIG = "adapter_config.json"

# starts from which the base's own weights are as they were
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)(\.(?P<kind>weight|bias))?"
)
_HEADS = ("classifier", "score", "classifier.out_proj")
# a decoder's embeddings and output layer
_TABLES = ("model.embed_tokens.weight", "lm_head.weight")
# GPT-2's layers, whose weights lie the other way round; fan_in_fan_out says nothing of others
_TRANSPOSED = ("c_attn", "c_proj", "c_fc", "q_attn")
_EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight", "tok_embeddings.weight")


class ChangedTensor:
    """A stored tensor with something done to it when it is read."""

    def __init__(self, base: StoredTensor, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._base = base
        self._change = change

    def get_shape(self) -> list[int]:
        """Its sizes."""
        return self._base.get_shape()

    def get_dtype(self) -> str:
        """Its precision in the file, as safetensors calls it."""
        return self._base.get_dtype()

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The changed tensor, or a part of it."""
        return self._change(self._base[...])[index]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder with an adapter.

    :param folder: where its files are.
    :param config: what ``adapter_config.json`` says.
    :param tensors: what was trained, by the base's names.
    """

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path, config: dict[str, Any]) -> Adapter:
        """Check what the config says, and map the tensors.

        :raises UnsupportedModelError: for a key that would change scores and is not run here.
        :raises ModelLoadError: if the weights are missing, or in another format.
        """
        path = folder / ADAPTER_WEIGHTS
        if not path.is_file():
            pickled = "adapter_model.bin"
            found = f"{pickled}. {CONVERT}" if (folder / pickled).is_file() else "no weights"
            raise ModelLoadError(
                f"{folder.name} is a LoRA adapter, whose weights must be {ADAPTER_WEIGHTS}; found "
                + found
            )
        return cls(folder, config, read_tensors([path]))

    def __post_init__(self) -> None:
        """Refuse keys that would change scores and are not run here."""
        if not isinstance(self.base, str | None):
            raise ModelLoadError(
                f"{self.folder.name}/{ADAPTER_CONFIG}: base_model_name_or_path must be the name of "
                f"a model, got {self.base!r:.80}"
            )
        _check_keys(self.folder, self.config)

    @property
    def base(self) -> str | None:
        """Folder or hub id of the model that was adapted, as the training had it."""
        return self.config.get("base_model_name_or_path") or None

    def labels(self) -> int | None:
        """How many labels a trained classification head has; None if none was trained."""
        for head in _HEADS:
            for name, tensor in self.tensors.items():
                if name.removeprefix(_PREFIX) == f"{head}.weight":
                    return tensor.get_shape()[0]
        return None

    def vocabulary(self) -> int | None:
        """Rows of the embeddings that were saved with the adapter; None if none were."""
        for name, tensor in self.tensors.items():
            if name.replace(".base_layer.", ".").endswith(_EMBEDDINGS):
                return tensor.get_shape()[0]
        return None

    def output_table(self) -> str:
        """The table of a decoder's logits, whose base has one for them and for its embeddings.

        :raises UnsupportedModelError: if a product was trained for it: peft adds it to both tables
            when it merges, and to one of them before.
        """
        names = [name.removeprefix(_PREFIX) for name in self.tensors]
        for name in names:
            if "lora_" in name and name.startswith((_TABLES[0][:-7], _TABLES[1][:-7])):
                raise UnsupportedModelError(
                    f"{self.folder.name} adapts {name} of a model whose embeddings and output "
                    "layer are tied; train without it, or convert the model that peft merged"
                )
        return _TABLES[any(name in names for name in _TABLES)]

    def merge(self, base: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        """The base's tensors with what was trained, merged when they are read.

        :raises ModelLoadError: if a tensor does not belong to the base, or is of another shape.
        """
        merged = dict(base)
        changes: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
        for full_name, tensor in self.tensors.items():
            if not full_name.startswith(_PREFIX):
                raise self._unknown(full_name, f"does not begin with {_PREFIX}")
            name = full_name.removeprefix(_PREFIX).replace(".base_layer.", ".")
            name = name.replace(".modules_to_save.default.", ".").replace(".default.", ".")
            found = _PART.fullmatch(name)
            if found is not None:
                part = f"{found['part']}.{found['kind'] or 'weight'}"
                changes[found["module"]][part] = tensor
            elif "lora_" in name:
                raise self._unknown(full_name, "is none of the parts of a LoRA layer")
            else:
                merged[_find(name, base) or name] = tensor
        embeddings = _find(_TABLES[0], base)
        if embeddings is not None and merged[embeddings] is not base[embeddings]:
            # a tied output layer stays what it was
            merged.setdefault(_TABLES[1], base[embeddings])
        for module, parts in changes.items():
            try:
                self._adapt(module, parts, merged)
            except (TypeError, ValueError, AttributeError, ArithmeticError, re.error) as error:
                raise ModelLoadError(
                    f"{self.folder.name}/{ADAPTER_CONFIG} has a value that cannot be: {error}"
                ) from error
        return merged

    def _adapt(
        self, module: str, parts: Mapping[str, StoredTensor], merged: dict[str, StoredTensor]
    ) -> None:
        """Put the merged weight of a module, and its bias, in the place of the base's."""
        name = _find(f"{module}.weight", merged)
        if name is None:
            raise self._unknown(module, "is no module of the base model")
        embedding = "lora_embedding_A.weight" in parts
        kind = "lora_embedding_" if embedding else "lora_"
        try:
            low, high = parts[f"{kind}A.weight"], parts[f"{kind}B.weight"]
        except KeyError as error:
            raise self._unknown(module, f"lacks {error}") from error
        if not _is_target(self.config, module):
            raise self._unknown(module, f"is none of the target_modules in {ADAPTER_CONFIG}")
        scale = self._scale(module, low.get_shape()[0])
        is_transposed = module.rpartition(".")[2] in _TRANSPOSED
        transposed = embedding or (is_transposed and self.config.get("fan_in_fan_out") is True)
        shape = [high.get_shape()[0], *low.get_shape()[1:]]
        if merged[name].get_shape() != (shape[::-1] if transposed else shape):
            raise self._unknown(module, f"changes a weight {shape}, and the base has another shape")
        magnitude = parts.get("lora_magnitude_vector.weight")
        if magnitude is not None and embedding:
            raise self._unknown(module, "is an embedding with DoRA, which is not run here")

        def change(weight: torch.Tensor) -> torch.Tensor:
            check_float(weight, f"the base of {self.folder.name}: {name}")
            weight = weight.float()
            # as rows of outputs
            weight = weight.T if transposed else weight
            weight = weight + scale * (high[...].float() @ low[...].float())
            if magnitude is not None:
                norms = torch.linalg.norm(weight, dim=1)
                weight = weight * (magnitude[...].float() / norms)[:, None]
            return weight.T if transposed else weight

        merged[name] = ChangedTensor(merged[name], change)
        bias = parts.get("lora_B.bias")
        if bias is not None:
            stored = _find(f"{module}.bias", merged)
            if stored is None:
                raise self._unknown(module, "has a bias, and the base has none")
            merged[stored] = ChangedTensor(
                merged[stored], lambda given: given.float() + scale * bias[...].float()
            )

    def _scale(self, module: str, rank: int) -> float:
        """What a module's product is multiplied by before it is added.

        :param rank: rows of its ``lora_A``.
        """
        said, alpha = (
            _of_pattern(self.config.get(pattern), module, self.config.get(key, 8))
            for pattern, key in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        )
        if said != rank:
            raise self._unknown(module, f"has rank {rank}, and {ADAPTER_CONFIG} says {said}")
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _unknown(self, name: str, why: str) -> ModelLoadError:
        return ModelLoadError(f"the adapter {self.folder.name} does not fit its base: {name} {why}")


def _check_keys(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what would change scores and is not run here."""
    refused = {
        key: value
        for key, value in config.items()
        # what is empty or off says nothing
        if value and key not in ADAPTER
    }
    if config.get("peft_type") != "LORA":
        refused = {"peft_type": config.get("peft_type")}
    elif config.get("init_lora_weights") not in _PLAIN_STARTS:
        refused["init_lora_weights"] = config["init_lora_weights"]
    if refused:
        key, value = next(iter(refused.items()))
        raise UnsupportedModelError(
            f"{folder.name}/{ADAPTER_CONFIG} has {key} {value!r:.80}, and LoRA adapters are read "
            "without it; merge it with peft (model.merge_and_unload().save_pretrained(…)) where it "
            "was trained"
        )


def _find(name: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    """A tensor's name in the base, whose body may have a prefix more or less; None: not there."""
    if name in tensors:
        return name
    _, _, without = name.partition(".")
    if without in tensors:
        return without
    longer = [each for each in tensors if each.partition(".")[2] == name]
    return longer[0] if len(longer) == 1 else None


def _is_target(config: Mapping[str, Any], module: str) -> bool:
    """Whether a module is one that the config adapts, as peft's `check_target_module_exists`."""

    def is_named(names: Any) -> bool:
        if isinstance(names, str):
            return names == "all-linear" or re.fullmatch(names, module) is not None
        return any(f".{module}".endswith(f".{name}") for name in names or ())

    if is_named(config.get("exclude_modules")):
        return False
    layers, targets = config.get("layers_to_transform"), config.get("target_modules")
    if layers not in (None, []) and not isinstance(targets, str):
        number = re.match(r".*?\.[^.]*\.(\d+)\.", module)
        if number is None or int(number[1]) not in (
            [layers] if isinstance(layers, int) else layers
        ):
            return False
    return targets is None or is_named(targets)


def _of_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that a module's name ends in, as peft's `get_pattern_key`."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
