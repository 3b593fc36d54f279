"""Hides Apple's GPU: GitHub's machines show one that cannot allocate. See ``.ci/smoke``."""

import torch

torch.backends.mps.is_available = lambda: False
