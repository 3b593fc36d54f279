"""The loop: sentence-transformers' trainer around a model that computes without padding."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, MSELoss
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from bge_rerank_integrations.engine.loading.devices import resolve_device, resolve_dtype
from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.tuning.lists import TrainingList
from bge_rerank_integrations.tuning.packed import PACKED_MODEL_TYPES, train_packed

TUNED_MODEL_TYPES = PACKED_MODEL_TYPES | {"deberta-v2", "distilbert", "electra"}
PAIRS_PER_STEP = 32
LEARNING_RATE = 2e-5
_WARMUP_SHARE = 0.1
_CHECKPOINTS = 5
# of the time that was asked for: the rest is for choosing between checkpoints
_TRAINING_SHARE = 0.8
_TIMED_STEPS = 3
_METRIC = "choosing_ndcg@10"


@dataclass(frozen=True)
class Plan:
    """How long training goes on; a run that was killed goes on with the same.

    :param steps: updates of the weights, each from ``PAIRS_PER_STEP`` pairs.
    :param pairs: (question, document) pairs of an epoch.
    :param seed: of the order in which they come.
    """

    steps: int
    pairs: int
    seed: int


def load_base(folder: Path, max_length: int) -> CrossEncoder:
    """Load a model to tune, in float32; it computes without padding where its encoder can.

    :raises ConfigurationError: for a model that is no encoder with one output.
    """
    try:
        model: CrossEncoder = CrossEncoder(
            str(folder),
            max_length=max_length,
            device=str(resolve_device("auto")),
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
        )
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{folder} cannot be loaded to be tuned: {error}") from error
    encoder: Any = model[0].auto_model
    if not (model.num_labels == 1 and encoder.config.model_type in TUNED_MODEL_TYPES):
        raise ConfigurationError(
            f"base must be an encoder with one output ({', '.join(sorted(TUNED_MODEL_TYPES))}), "
            f"got {folder.name}: {encoder.config.model_type} with {model.num_labels}"
        )
    # dropout would need masks of the packed shape, and short runs on few documents gain nothing
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if encoder.config.model_type in PACKED_MODEL_TYPES:
        train_packed(encoder)
    return model


def train(
    model: CrossEncoder,
    lists: Sequence[TrainingList],
    choosing: Sequence[dict[str, Any]],
    folder: Path,
    *,
    minutes: float | None,
    epochs: float,
    is_taught: bool,
    seed: int,
    show_progress: bool,
) -> Plan:
    """Train, and leave the best checkpoint's weights in the model.

    Goes on from the last checkpoint in the folder, if there is one. An interrupt (ctrl-C) ends
    training; the best checkpoint so far counts.

    :param choosing: samples of sentence-transformers' ``CrossEncoderRerankingEvaluator``, whose
        nDCG@10 chooses between checkpoints.
    :param folder: of the checkpoints.
    :param minutes: how long training may take; the speed of the first steps says how many they are.
    :param epochs: how often every pair comes, where ``minutes`` is None.
    :param is_taught: labels are a teacher's logits.
    """
    rows = [
        {"query": one.query, "document": document, "label": label}
        for one in lists
        for document, label in zip(one.documents, one.labels, strict=True)
    ]
    loss = MSELoss(model) if is_taught else BinaryCrossEntropyLoss(model)
    plan = _plan(folder, model, loss, rows, minutes, epochs, seed)
    evaluator = CrossEncoderRerankingEvaluator(
        list(choosing), at_k=10, always_rerank_positives=False, name="choosing", write_csv=False
    )
    every = max(1, plan.steps // _CHECKPOINTS)
    dtype = resolve_dtype("auto", model.device)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(folder),
            max_steps=plan.steps,
            per_device_train_batch_size=PAIRS_PER_STEP,
            learning_rate=LEARNING_RATE,
            warmup_steps=_WARMUP_SHARE,
            bf16=dtype is torch.bfloat16,
            fp16=dtype is torch.float16,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model=_METRIC,
            greater_is_better=True,
            logging_strategy="no",
            disable_tqdm=not show_progress,
            report_to="none",
            dataloader_pin_memory=model.device.type == "cuda",
            seed=seed,
        ),
        train_dataset=Dataset.from_list(rows),
        evaluator=evaluator,
        loss=loss,
        callbacks=[_Deadline(minutes)] if minutes is not None else [],
    )
    if not show_progress:
        trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    except KeyboardInterrupt:
        if trainer.state.best_model_checkpoint:
            trainer._load_best_model()
    return plan


class _Deadline(TrainerCallback):
    """Ends training where the machine has become slower than the plan."""

    def __init__(self, minutes: float) -> None:
        self._ends = time.monotonic() + 60 * minutes

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if time.monotonic() > self._ends:
            control.should_evaluate = control.should_save = True
            control.should_training_stop = True


def _plan(
    folder: Path,
    model: CrossEncoder,
    loss: torch.nn.Module,
    rows: Sequence[dict[str, Any]],
    minutes: float | None,
    epochs: float,
    seed: int,
) -> Plan:
    """The plan of the folder, or a new one, which is kept there."""
    file = folder / "plan.json"
    if file.is_file():
        plan = Plan(**json.loads(file.read_text("utf-8")))
        if (plan.pairs, plan.seed) != (len(rows), seed):
            raise ConfigurationError(
                f"{folder} holds checkpoints of other data or another seed: remove it, or go on "
                "with the same"
            )
        return plan
    if minutes is None:
        steps = max(1, round(epochs * len(rows) / PAIRS_PER_STEP))
    else:
        steps = max(1, int(60 * minutes * _TRAINING_SHARE / _seconds_of_step(model, loss, rows)))
    plan = Plan(steps, len(rows), seed)
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(plan)), "utf-8")
    return plan


def _seconds_of_step(
    model: CrossEncoder, loss: torch.nn.Module, rows: Sequence[dict[str, Any]]
) -> float:
    """How long a step takes here: some are computed, and none updates the weights."""
    model.train()
    stride = max(1, len(rows) // PAIRS_PER_STEP)
    batch = rows[::stride][:PAIRS_PER_STEP]
    texts = [[row[name] for row in batch] for name in ("query", "document")]
    labels = torch.tensor([row["label"] for row in batch], device=model.device)
    seconds = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        loss(texts, labels).backward()
        model.zero_grad()
        seconds.append(time.perf_counter() - started)
    # the first compiles kernels
    return min(seconds)
