"""What a scorer is made from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from bge_rerank_integrations.engine.loading.checkpoint import Checkpoint
from bge_rerank_integrations.engine.tokenization.templates import PromptTemplate
from bge_rerank_integrations.settings import EngineConfig


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One scorer to make.

    :param checkpoint: the model's files.
    :param config: the caller's settings.
    :param tokenizer: the checkpoint's.
    :param template: what the model is asked; None for encoders.
    :param layers: numbers of layers to score after, ascending.
    :param device: where it is to run.
    :param dtype: in which precision.
    """

    checkpoint: Checkpoint
    config: EngineConfig
    tokenizer: Tokenizer
    template: PromptTemplate | None
    layers: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
