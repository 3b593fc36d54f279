"""Fit a scale and a shift of the logits on held-out questions and fold them into the head."""

import random
from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import BertForSequenceClassification

from training.packing import PairEncoder, forward, pack
from training.prepare import Prepared

# One relevant passage beside ten others: the score means "relevant" for candidate lists like it.
NEGATIVES = 10
MAX_TOKENS = 512
MAX_QUESTIONS = 300
BATCH_PAIRS = 32


def score(
    model: BertForSequenceClassification, encoder: PairEncoder, query: str, texts: Sequence[str]
) -> torch.Tensor:
    """Logits of the texts in the order given, `(len(texts),)` float32."""
    pairs = encoder.encode(query, texts, MAX_TOKENS)
    by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
    logits = torch.empty(len(pairs))
    with torch.inference_mode():
        for first in range(0, len(pairs), BATCH_PAIRS):
            chosen = by_length[first : first + BATCH_PAIRS]
            logits[chosen] = forward(model, pack([pairs[i] for i in chosen]))
    return logits


def held_out_logits(
    model: BertForSequenceClassification, encoder: PairEncoder, prepared: Prepared
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and 0/1 labels of each held-out question: one positive, ten hard negatives."""
    rng = random.Random(0)
    scored = []
    chosen = rng.sample(prepared.held_out, min(MAX_QUESTIONS, len(prepared.held_out)))
    for index, question in chosen:
        candidates = list(question.judged_negatives or prepared.mined.get(index, ()))
        negatives = rng.sample(candidates, min(NEGATIVES, len(candidates)))
        passages = [question.positives[0], *negatives]
        texts = [f"{passage.title} {passage.text}".strip() for passage in passages]
        labels = torch.zeros(len(texts))
        labels[0] = 1.0
        scored.append((score(model, encoder, question.query, texts), labels))
    return scored


def reciprocal_rank(scored: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Mean reciprocal rank of the positive: what checkpoints are compared by."""
    ranks = [1 + int((logits[1:] >= logits[0]).sum()) for logits, _ in scored]
    return sum(1 / rank for rank in ranks) / len(ranks)


def fit_affine(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Scale and shift with the least binary cross-entropy (Platt scaling).

    :param logits: `(n,)`; `labels`: `(n,)`, 0 or 1.
    """
    affine = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([affine], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(
            logits.double() * affine[0] + affine[1], labels.double()
        )
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)
    return affine[0].item(), affine[1].item()


def fold(model: BertForSequenceClassification, scale: float, shift: float) -> None:
    """Change the head so that new logit = scale · old logit + shift."""
    with torch.no_grad():
        model.classifier.weight.mul_(scale)
        model.classifier.bias.mul_(scale).add_(shift)
