"""Tensors that say they are on a GPU and hold nothing.

Operators check devices and types and compute shapes, and one that would wait for the device raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bge_rerank_integrations.engine.scorers import heads

CUDA = torch.device("cuda:0")


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tensors be made on a GPU of compute capability 9.0 that is not there."""
    # these ask for a driver before they ask what kind of tensor it is
    monkeypatch.setattr(torch.Tensor, "__getitem__", _index)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(heads, "_PendingArray", lambda logits: logits)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    if find_spec("triton"):
        from bge_rerank_integrations.engine.scorers import kernels

        monkeypatch.setattr(kernels, "is_available", lambda _: True)
        monkeypatch.setattr(kernels, "launch", lambda *_, **__: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def to_fake_cuda(module: nn.Module, dtype: torch.dtype) -> None:
    """Put tensors of the same shapes on the GPU in the places of a module's own."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            moved = torch.empty(parameter.shape, dtype=dtype, device=CUDA)
            setattr(part, name, nn.Parameter(moved, requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))


def _index(tensor: torch.Tensor, key: Any) -> torch.Tensor:
    """``tensor[key]`` by operators, for the keys that occur."""
    keys = list(key) if isinstance(key, tuple) else [key]
    dimension = 0
    for one in keys:
        if one is None:
            tensor = tensor.unsqueeze(dimension)
            dimension += 1
        elif one is Ellipsis:
            # only at the beginning, before keys that take a dimension each or add one
            dimension = tensor.dim() - sum(other is not None for other in keys[1:])
        elif isinstance(one, slice):
            start, stop, _ = one.indices(tensor.shape[dimension])
            tensor = tensor.narrow(dimension, start, stop - start)
            dimension += 1
        elif isinstance(one, torch.Tensor):
            tensor = torch.ops.aten.index.Tensor(tensor, [None] * dimension + [one])
            dimension += 1
        else:
            tensor = tensor.select(dimension, one)
    return tensor
