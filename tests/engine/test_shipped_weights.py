"""The shipped weights reach their figures on a fixed list of judged questions.

The 24 questions of `judged_questions.json` were written for this test, each with one passage that
answers it and four that share its words. The figures tie the weights: other weights give others.
"""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from paths import JUDGED_QUESTIONS, ROOT
from safetensors.torch import load_file, save_file

from bge_rerank_integrations import RerankEngine

LIST = JUDGED_QUESTIONS
WEIGHTS = ROOT / "bge_rerank_integrations" / "models" / "tiny"

# measured in float32 on a CPU; a change of the weights changes them
FIGURES = {"MRR": 0.5757, "mean logit of answers": -2.082, "mean logit of others": -3.426}
TOLERANCE = 0.005


def figures(model: str) -> dict[str, float]:
    """Mean reciprocal rank of the answers, and the mean logits of both kinds of passages."""
    questions = json.loads(LIST.read_text("utf-8"))["questions"]
    reciprocal_ranks, answers, others = [], [], []
    pairs = [(row["question"], passage) for row in questions for passage in row["passages"]]
    with RerankEngine(model, dtype="float32", device="cpu", normalize=False) as engine:
        scores = iter(engine.score_pairs(pairs))
        for row in questions:
            logits = list(islice(scores, len(row["passages"])))
            answer = logits.pop(row["answer"])
            reciprocal_ranks.append(1 / (1 + sum(logit > answer for logit in logits)))
            answers.append(answer)
            others.extend(logits)
    means = [sum(values) / len(values) for values in (reciprocal_ranks, answers, others)]
    return dict(zip(FIGURES, means, strict=True))


def test_the_shipped_weights_reach_their_figures() -> None:
    assert figures("tiny") == pytest.approx(FIGURES, abs=TOLERANCE)


# MRR alone says little: the pooled states lie nearly on a line, and many heads give its order
@pytest.mark.parametrize(
    "tensor",
    ["classifier.weight", "bert.pooler.dense.weight", "bert.encoder.layer.5.output.dense.weight"],
)
def test_one_shuffled_tensor_misses_the_figures(tensor: str, tmp_path: Path) -> None:
    folder = tmp_path / "shuffled"
    shutil.copytree(WEIGHTS, folder)
    tensors = load_file(folder / "model.safetensors")
    order = torch.randperm(tensors[tensor].shape[-1], generator=torch.Generator().manual_seed(0))
    tensors[tensor] = tensors[tensor][..., order].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert figures(str(folder)) != pytest.approx(FIGURES, abs=TOLERANCE)
