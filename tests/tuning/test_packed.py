"""Training without padding against transformers' own padded training, in float32."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SMALL, SMALL_MODERNBERT
from paths import GOLDEN
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.tuning import packed
from bge_rerank_integrations.tuning.packed import PACKED_MODEL_TYPES, train_packed

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS: list[PreTrainedConfig] = [
    BertConfig(**SMALL, **NO_DROPOUT, num_labels=1),
    *(
        kind(**SMALL, **NO_DROPOUT, num_labels=1, pad_token_id=1)
        for kind in (RobertaConfig, XLMRobertaConfig, CamembertConfig)
    ),
    ModernBertConfig(**SMALL_MODERNBERT),
    ModernBertConfig(**SMALL_MODERNBERT | {"classifier_pooling": "mean"}),
]
LENGTHS = [[7], [5, 60, 33, 17, 90, 7, 9, 12, 40, 3]]


@pytest.mark.parametrize("lengths", LENGTHS, ids=len)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_losses_and_gradients_equal_padded_training(
    config: PreTrainedConfig, lengths: list[int]
) -> None:
    torch.manual_seed(0)
    padded = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    packed = copy.deepcopy(padded)
    train_packed(packed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 300, mask.shape).masked_fill(~mask, config.pad_token_id)
    logits = [
        model.train()(input_ids=ids, attention_mask=mask.long()).logits
        for model in (padded, packed)
    ]
    labels = torch.arange(len(lengths)).remainder(2).float()[:, None]
    losses = [torch.nn.functional.binary_cross_entropy_with_logits(it, labels) for it in logits]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-5)
    for loss in losses:
        loss.backward()
    gradients = [
        {name: it.grad for name, it in model.named_parameters() if it.grad is not None}
        for model in (padded, packed)
    ]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_attention_on_a_cpu_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []

    def attention(query: torch.Tensor, *rest: torch.Tensor, **options: Any) -> torch.Tensor:
        result = scaled_dot_product_attention(query, *rest, **options)
        dtypes.extend([query.dtype, result.dtype])
        return result

    monkeypatch.setattr(packed, "scaled_dot_product_attention", attention)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[0])
    train_packed(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=torch.ones(2, 5).long(), attention_mask=torch.ones(2, 5)).logits
    assert set(dtypes) == {torch.float32}
    assert logits.dtype is torch.bfloat16


def test_every_packed_type_is_compared() -> None:
    assert {config.model_type for config in CONFIGS} == PACKED_MODEL_TYPES


def test_a_model_is_saved_as_it_was(tmp_path: Path) -> None:
    config = BertConfig(**SMALL, num_labels=1)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path / "before")
    train_packed(model)
    model.save_pretrained(tmp_path / "after")
    before, after = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("before", "after")
    )
    assert before == after


def test_training_leaves_a_decoder_that_scores_as_it_is() -> None:
    """A teacher reads while its student is trained: each has packed attention of its own."""
    with RerankEngine(str(GOLDEN / "gemma"), device="cpu", dtype="float32") as teacher:
        before = teacher.rerank("a question", ["a text", "another one"])
        model = AutoModelForSequenceClassification.from_config(CONFIGS[0])
        train_packed(model)
        assert teacher.rerank("a question", ["a text", "a new one"])
        ids = torch.tensor([[1, 5, 7, 2]])
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert teacher.rerank("a question", ["a text", "another one"]) == before
    with RerankEngine(str(GOLDEN / "gemma"), device="cpu", dtype="float32"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
