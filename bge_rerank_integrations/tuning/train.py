"""Training: sentence-transformers' trainer around a model that computes without padding."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.util import batch_to_device
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from ..engine.loading.devices import resolve_device, resolve_dtype
from ..errors import ConfigurationError
from .data import TrainingList
from .packed import PACKED_MODEL_TYPES, train_packed

TUNED_MODEL_TYPES = PACKED_MODEL_TYPES | {"deberta-v2", "distilbert", "electra"}
_POINTWISE_WEIGHT = 0.2
_WARMUP_SHARE = 0.1
_CHECKPOINTS = 5
# of the time that was asked for: the rest is for choosing between checkpoints
_TRAINING_SHARE = 0.8
# for timing steps, and at least so many steps: a machine can be busy for a moment
_TIMING_SHARE = 0.03
_TIMED_STEPS = 3
_METRIC = "validation_ndcg@10"
# with few questions more epochs overfit
_MOST_EPOCHS = 3.0


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained.

    :param learning_rate: at its highest; it rises for a tenth of the steps, then falls to 0.
    :param minutes: how long training may take; the speed of the first steps says how many they are,
        up to three epochs.
    :param epochs: how often every list comes, where ``minutes`` is None.
    :param seed: of the order in which lists come.
    """

    learning_rate: float
    minutes: float | None = None
    epochs: float = 2.0
    lists_per_step: int = 5
    seed: int = 0


class ListLoss(torch.nn.Module):
    """How far a model's logits are from the labels of lists of documents.

    For judged documents cross-entropy over each list, which ranks, and a fifth of binary
    cross-entropy, which gives logits a meaning across lists. For a teacher's logits the mean
    squared error. sentence-transformers' ``ListNetLoss`` takes the softmax of the labels for the
    target, which gives one relevant document among seven a third.

    :param has_teacher_logits: labels are a teacher's logits.
    """

    def __init__(self, model: CrossEncoder, *, has_teacher_logits: bool) -> None:
        super().__init__()
        # the trainer puts the model that it has prepared here
        self.model = model
        self._has_teacher_logits = has_teacher_logits

    def forward(self, inputs: list[Any], labels: list[torch.Tensor], **_: Any) -> torch.Tensor:
        """Score the lists of a step and compare.

        :param inputs: queries, and for each a list of documents.
        :param labels: of each list `(documents,)`; at least one is above 0, or a teacher's logits.
        """
        pairs = [
            (query, document)
            for query, documents in zip(*inputs, strict=True)
            for document in documents
        ]
        device = self.model.device
        features = batch_to_device(self.model.preprocess(pairs), device)
        logits = self.model(features)["scores"].view(-1).float()
        targets = torch.cat(labels).to(device).float()
        if self._has_teacher_logits:
            return functional.mse_loss(logits, targets)
        sizes = [len(of_list) for of_list in labels]
        rows = pad_sequence(list(logits.split(sizes)), batch_first=True, padding_value=-1e4)
        wanted = pad_sequence(list(targets.split(sizes)), batch_first=True)
        listwise = functional.cross_entropy(rows, wanted / wanted.sum(1, keepdim=True))
        pointwise = functional.binary_cross_entropy_with_logits(logits, targets)
        return listwise + _POINTWISE_WEIGHT * pointwise


class _Validation(CrossEncoderRerankingEvaluator):
    """nDCG@10 of some questions, computed in the precision that trains."""

    def __init__(self, samples: Sequence[dict[str, Any]]) -> None:
        super().__init__(
            list(samples),
            at_k=10,
            always_rerank_positives=False,
            name="validation",
            write_csv=False,
        )

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """An evaluator."""
        with _autocast(model.device):
            return super().__call__(model, output_path, epoch, steps)


def _autocast(device: torch.device) -> torch.autocast:
    """The precision that trains."""
    dtype = resolve_dtype("auto", device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def load_base(folder: Path, max_length: int) -> CrossEncoder:
    """Load a model to tune, in float32; it computes without padding where its encoder can.

    Word embeddings stay fixed: training sees a small part of the vocabulary, and moving those rows
    alone would part them from their neighbors.

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
    encoder.get_input_embeddings().weight.requires_grad_(False)
    if encoder.config.model_type in PACKED_MODEL_TYPES:
        train_packed(encoder)
    return model


def train(
    model: CrossEncoder,
    lists: Sequence[TrainingList],
    validation: Sequence[dict[str, Any]],
    folder: Path,
    settings: TrainSettings,
    *,
    has_teacher_logits: bool,
    show_progress: bool,
) -> int:
    """Train, and leave the best checkpoint's weights in the model.

    Resumes from the last checkpoint in the folder, if there is one. An interrupt (ctrl-C) ends
    training; the best checkpoint so far counts.

    :param validation: samples of sentence-transformers' ``CrossEncoderRerankingEvaluator``, whose
        nDCG@10 chooses between checkpoints.
    :param folder: of the checkpoints.
    :param has_teacher_logits: labels are a teacher's logits.
    :returns: how many steps were made, also before an interrupt.
    """
    rows = [{"query": one.query, "documents": one.documents, "labels": one.labels} for one in lists]
    loss = ListLoss(model, has_teacher_logits=has_teacher_logits)
    dtype = resolve_dtype("auto", model.device)
    max_steps = _planned_steps(folder, loss, rows, settings)
    every = max(1, max_steps // _CHECKPOINTS)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(folder),
            max_steps=max_steps,
            per_device_train_batch_size=settings.lists_per_step,
            learning_rate=settings.learning_rate,
            warmup_steps=_WARMUP_SHARE,
            use_cpu=model.device.type == "cpu",
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
            seed=settings.seed,
        ),
        train_dataset=Dataset.from_list(rows),
        evaluator=_Validation(validation),
        loss=loss,
        callbacks=[] if settings.minutes is None else [_Deadline(settings.minutes)],
    )
    if not show_progress:
        trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    except KeyboardInterrupt:
        if trainer.state.best_model_checkpoint:
            trainer._load_best_model()
    steps: int = trainer.state.global_step
    return steps


def weights(model: CrossEncoder) -> dict[str, torch.Tensor]:
    """A copy of the model's weights, in main memory."""
    return {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}


def average(
    model: CrossEncoder, base: Mapping[str, torch.Tensor], validation: Sequence[dict[str, Any]]
) -> bool:
    """Give the model the mean of its weights and the base's, unless its nDCG@10 is lower.

    The mean keeps more of what the base knew beyond the training questions. From Wortsman et al.,
    "Robust fine-tuning of zero-shot models", 2022, https://arxiv.org/abs/2109.01903.

    :param base: weights before training.
    :param validation: like those of :func:`train`.
    :returns: whether the model has the mean now.
    """
    validate = _Validation(validation)
    trained, ndcg = weights(model), validate(model)[_METRIC]
    model.load_state_dict(
        {
            name: value.lerp(base[name], 0.5) if value.is_floating_point() else value
            for name, value in trained.items()
        }
    )
    is_mean = validate(model)[_METRIC] >= ndcg
    if not is_mean:
        model.load_state_dict(trained)
    return is_mean


class _Deadline(TrainerCallback):
    """Ends training where the machine has become slower than the plan."""

    def __init__(self, minutes: float) -> None:
        self._ends = time.monotonic() + 60 * minutes

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if time.monotonic() > self._ends:
            control.should_evaluate = control.should_save = True
            control.should_training_stop = True


def _planned_steps(
    folder: Path, loss: ListLoss, rows: Sequence[dict[str, Any]], settings: TrainSettings
) -> int:
    """Updates of the weights, as planned in the folder; a run that was killed resumes that plan."""
    file = folder / "plan.json"
    if file.is_file():
        plan = json.loads(file.read_text("utf-8"))
        if (plan["lists"], plan["seed"]) != (len(rows), settings.seed):
            raise ConfigurationError(
                f"{folder} holds checkpoints of other data or another seed: remove it, or give the "
                "same data and seed"
            )
        return int(plan["steps"])
    if settings.minutes is None:
        steps = settings.epochs * len(rows) / settings.lists_per_step
    else:
        available = 60 * settings.minutes
        batch = rows[:: max(1, len(rows) // settings.lists_per_step)][: settings.lists_per_step]
        seconds = _seconds_of_step(loss, batch, _TIMING_SHARE * available)
        most = _MOST_EPOCHS * len(rows) / settings.lists_per_step
        steps = min(most, available * _TRAINING_SHARE / seconds)
    plan = {"steps": max(1, round(steps)), "lists": len(rows), "seed": settings.seed}
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(plan), "utf-8")
    return int(plan["steps"])


def _seconds_of_step(loss: ListLoss, batch: Sequence[dict[str, Any]], timing_s: float) -> float:
    """How long a step takes here: some are computed, and none updates the weights."""
    loss.model.train()
    inputs = [[row[name] for row in batch] for name in ("query", "documents")]
    labels = [torch.tensor(row["labels"]) for row in batch]
    seconds: list[float] = []
    while len(seconds) < _TIMED_STEPS or sum(seconds) < timing_s:
        started = time.perf_counter()
        with _autocast(loss.model.device):
            value = loss(inputs, labels)
        value.backward()
        loss.model.zero_grad()
        seconds.append(time.perf_counter() - started)
    # the first compiles kernels
    return min(seconds)
