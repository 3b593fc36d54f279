"""Where a test runs: on the CPU, and on a CUDA device where there is one."""

from __future__ import annotations

import pytest
import torch

# What these tests need: a CUDA device of compute capability 8.0 or later, torch 2.11 or later,
# transformers, sentence-transformers, and pytest with its plugins asyncio, socket and timeout.
needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = pytest.param("cuda", marks=needs_cuda)
DEVICES = ["cpu", CUDA]
