"""What a GPU would be given, where there is none: see ``fake_cuda``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, fake_cuda, to_fake_cuda
from fakes import load
from paths import GOLDEN
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import DataDependentOutputException

from bge_rerank_integrations import EngineConfig
from bge_rerank_integrations.engine.scorers import attention, flash_attention
from bge_rerank_integrations.engine.scorers.attention import LocalAttention, Packing
from bge_rerank_integrations.engine.scorers.bert import Bert, bert_head
from bge_rerank_integrations.engine.scorers.decoder import DecoderScorer
from bge_rerank_integrations.engine.scorers.encoder_configs import BertConfig, ModernBertConfig
from bge_rerank_integrations.engine.scorers.heads import EncoderScorer, Pooling
from bge_rerank_integrations.engine.scorers.modernbert import ModernBert, modernbert_head
from bge_rerank_integrations.engine.scorers.weights import Weights
from bge_rerank_integrations.engine.tokenization.pairs import TokenSequence

BATCH = [TokenSequence(np.arange(5, 5 + n, dtype=np.int32), 4, n - 2) for n in (12, 30, 7)]

pytestmark = pytest.mark.skipif(
    not flash_attention.IS_COMPLETE, reason="an older torch: no kernel for packed sequences"
)


class OnlyShapes:
    """A checkpoint whose tensors hold nothing."""

    def __init__(self, folder: Path) -> None:
        self._like = load_file(folder / "model.safetensors")

    def __contains__(self, name: str) -> bool:
        return name in self._like

    def read(self, name: str, _: Sequence[int | None]) -> torch.Tensor:
        return torch.empty_like(self._like[name])


def answer_of(scorer: Any) -> torch.Tensor:
    # without inference mode, in which tensors that are not there cannot be sliced
    logits: torch.Tensor = type(scorer).score.__wrapped__(scorer, BATCH)
    return logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_encoder(dtype: torch.dtype, pooling: Pooling, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(files("bge_rerank_integrations") / "models" / "tiny"))
    shape = BertConfig.from_config(json.loads((folder / "config.json").read_text()))
    stored = OnlyShapes(folder)
    assert shape.hidden_size == 32 * shape.num_attention_heads  # the flash kernel takes these
    with fake_cuda(monkeypatch):
        weights = Weights(stored, CUDA, dtype)
        body = Bert(weights.module(shape.layout.body), shape, passage_type=0, pooling=pooling)
        logits = answer_of(EncoderScorer(body, bert_head(weights, shape)))
    assert (logits.device, logits.dtype, logits.shape) == (CUDA, torch.float32, (3, 1))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("layers", [4, 3])
def test_an_encoder_with_local_attention(
    pooling: Pooling, layers: int, modernbert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth layer is global, the third is local."""
    folder = Path(modernbert)
    given = json.loads((folder / "config.json").read_text())
    cut = {"num_hidden_layers": layers, "layer_types": given["layer_types"][:layers]}
    shape = ModernBertConfig.from_config({**given, **cut})
    assert shape.head_dim % 8 == 0  # the flash kernel takes these
    stored = OnlyShapes(folder)
    with fake_cuda(monkeypatch):
        weights = Weights(stored, CUDA, torch.bfloat16)
        body = ModernBert(weights.module("model"), shape, pooling=pooling)
        logits = answer_of(EncoderScorer(body, modernbert_head(weights, shape)))
    assert (logits.device, logits.dtype, logits.shape) == (CUDA, torch.float32, (3, 1))


def test_local_attention_without_the_flash_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch):
        states = torch.empty(3, 49, 2, 8, device=CUDA)
        attend = LocalAttention(Packing.from_lengths([12, 30, 7], CUDA), 4, scale=0.3)
        attended = attend(*states.unbind())
    assert (attended.device, attended.dtype, attended.shape) == (CUDA, torch.float32, (49, 2, 8))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gemma", {}),
        ("minicpm", {"cutoff_layers": (2, 3)}),
        ("light", {"compress_ratio": 2, "compress_layers": (1, 2)}),
    ],
)
def test_a_decoder(name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # the tiny models have heads of 12, which the kernel itself would not take
    monkeypatch.setattr(attention, "has_flash_kernel", lambda query: query.is_cuda)
    (scorer,) = load(EngineConfig(str(GOLDEN / name), device="cpu", **settings)).scorers
    assert isinstance(scorer, DecoderScorer)
    with fake_cuda(monkeypatch):
        to_fake_cuda(scorer._model, torch.bfloat16)
        scorer._heads = {n: torch.empty_like(h, device=CUDA) for n, h in scorer._heads.items()}
        logits = answer_of(scorer)
    heads = len(settings.get("cutoff_layers", "1"))
    assert (logits.device, logits.dtype, logits.shape) == (CUDA, torch.float32, (3, heads))


def test_waiting_for_the_device_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch), pytest.raises(DataDependentOutputException):
        torch.ones(2, device=CUDA).sum().item()
