"""Functions that checkpoints name by their torch class; no other name is ever imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from bge_rerank_integrations.errors import UnsupportedModelError

#: what may follow a linear layer, by the class's name; as with its default arguments
ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Identity": lambda states: states,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "GELU": functional.gelu,
    "ReLU": functional.relu,
    "SiLU": functional.silu,
    "Mish": functional.mish,
    "ELU": functional.elu,
    "LeakyReLU": functional.leaky_relu,
    "Softplus": functional.softplus,
}


def activation_name(path: object, allowed: Mapping[str, object], file: str) -> str:
    """The class's name, if it is one of torch's that is known here.

    :param path: as saved, like ``torch.nn.modules.activation.GELU``.
    :param allowed: by name.
    :param file: where it stands, for the message.
    :raises UnsupportedModelError: for any other.
    """
    module, _, name = str(path).rpartition(".")
    if not f"{module}.".startswith("torch.nn.") or name not in allowed:
        raise UnsupportedModelError(
            f"{file} names the activation {path!r:.80}; known are torch.nn's {', '.join(allowed)}"
        )
    return name
