"""From a user's questions and documents to a reranker that knows them."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..checks import require
from ..engine.engine import RerankEngine
from ..engine.loading.checkpoint import open_checkpoint
from ..engine.loading.devices import resolve_device, resolve_dtype
from ..engine.scorers.weights import WeightFiles
from ..errors import ConfigurationError, InputError, MissingExtraError, ModelLoadError
from ..evaluation.collection import Collection
from ..evaluation.measures import PRIMARY
from ..evaluation.report import Report, summarize
from ..evaluation.runs import Run, bm25, read_run, rerank
from ..settings import BUILT_IN_MODEL, EngineConfig
from .data import (
    Split,
    TrainingList,
    blend_labels,
    judged_by,
    read_data,
    split,
    training_lists,
    validation_samples,
    with_teacher_logits,
)

DEPTH = 50
# of a label: what the base finds relevant, for some documents that nobody judged answer
_BASE_SHARE = 0.4
# the built-in model's, measured (training/README.md); a wider encoder has less, in proportion
_LEARNING_RATE, _WIDTH = 1e-4, 384
_CHECKPOINTS = "checkpoints"
_EXTRA = (
    "sentence_transformers", "accelerate", "datasets", "psutil", "bm25s", "Stemmer", "ir_measures",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """What tuning has to work with.

    :param documents: of the corpus.
    :param training: questions that make training lists.
    :param pairs: (question, document) pairs of those lists.
    :param validation: questions that choose between checkpoints.
    :param held_out: questions that measure before and after.
    """

    documents: int
    training: int
    pairs: int
    validation: int
    held_out: int


@dataclass(frozen=True)
class Tuned:
    """A tuned model, and what tuning it has changed.

    :param folder: of the model: safetensors, tokenizer and model card. Where the tuned model is
        no better on the held-out questions, it holds the base's weights, and the card says so.
    :param counts: of questions, documents and pairs.
    :param report: the first stage, the base and the tuned model on the held-out questions.
    """

    folder: Path
    counts: Counts
    report: Report

    @property
    def gain(self) -> float:
        """By how much nDCG@10 on the held-out questions has risen."""
        before, after = self.report.systems[-2:]
        return after.means[PRIMARY] - before.means[PRIMARY]

    @property
    def is_better(self) -> bool:
        """Whether nDCG@10 has risen; if not, the folder holds the base."""
        return self.gain > 0


def read(data: Path, *, teacher: str | None = None, held_out: float = 0.2) -> Collection:
    """Read what :func:`tune` works with.

    Invalid data and an invalid share of held-out questions raise here, before a model is loaded.
    """
    is_share = isinstance(held_out, float) and 0 < held_out <= 0.5
    require(is_share, "held_out", "a share above 0 and up to 0.5", held_out)
    return read_data(data, judged=teacher is None)


def prepare(
    collection: Collection,
    *,
    teacher: str | None = None,
    first_stage: Path | None = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> tuple[Split, Run, list[TrainingList], Counts]:
    """Rank, draw and count what :func:`tune` would train on, without training.

    :returns: the questions of each part, the first stage's rankings of all of them, the training
        lists and the counts.
    """
    if teacher is not None:
        _require_memory(teacher)
    found = read_run(first_stage, collection, DEPTH) if first_stage else bm25(collection, DEPTH)
    with nullcontext() if teacher is None else RerankEngine(teacher) as engine:
        if engine is not None and not collection.relevance:
            collection = judged_by(engine, collection, found)
        parts = split(collection, held_out, seed)
        lists = training_lists(parts.training, found, seed)
        if engine is not None:
            lists = with_teacher_logits(lists, engine.with_options(normalize=False))
    counts = Counts(
        documents=len(collection.documents),
        training=len(lists),
        pairs=sum(len(one.documents) for one in lists),
        validation=len(parts.validation.queries),
        held_out=len(parts.held_out.queries),
    )
    return parts, found, lists, counts


def _require_memory(teacher: str) -> None:
    """Compare a teacher's weights with the memory that is free, before a first stage searches.

    A CPU without enough would end the process, and say nothing.

    :raises ModelLoadError: if they do not fit.
    """
    # imported here: it comes with the extra
    import psutil

    device = resolve_device("auto")
    dtype = resolve_dtype("auto", device)
    checkpoint = open_checkpoint(EngineConfig(teacher))
    files = WeightFiles(checkpoint.folder, checkpoint.open_tensors())
    needed = files.count() * dtype.itemsize
    is_cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if is_cuda else psutil.virtual_memory().available
    if needed > free:
        raise ModelLoadError(
            f"{teacher} needs {needed / 1e9:.1f} GB for its weights, and {device.type} has "
            f"{free / 1e9:.1f} GB free: take a smaller teacher"
        )


def tune(
    data: str | Path,
    out: str | Path,
    *,
    base: str = BUILT_IN_MODEL,
    teacher: str | None = None,
    first_stage: str | Path | None = None,
    minutes: float | None = None,
    epochs: float = 2.0,
    held_out: float = 0.2,
    max_length: int = 512,
    seed: int = 0,
    show_progress: bool = False,
) -> Tuned:
    """Tune a reranker on a user's own questions and documents, and measure what that changes.

    Questions that measure are held out: they never enter training, nor choose between checkpoints.
    The same call resumes a killed run from the last checkpoint.

    :param data: see :func:`~bge_rerank_integrations.tuning.data.read_data`.
    :param out: folder of the tuned model, for both integrations and for sentence-transformers.
    :param base: the model to start from: an encoder with one output.
    :param teacher: a model whose logits are the labels; then documents need no judgments.
    :param first_stage: rankings of all questions as a TREC run file; None means BM25.
    :param minutes: about how long to train, up to three epochs; None means ``epochs``.
    :param held_out: the share of questions that measure.
    :param max_length: tokens of a pair, at most.
    :returns: what was measured. A tuned model that is no better on the held-out questions is not
        kept: the folder holds the base then, see :attr:`Tuned.is_better`.
    :raises InputError: naming what is wrong with the data.
    :raises ConfigurationError: for a base that cannot be tuned, or an invalid setting.
    :raises ModelLoadError: if the base or the teacher cannot be loaded, or the teacher's weights do
        not fit the free memory.
    :raises MissingExtraError: if the extra ``tune`` is not installed.
    """
    if any(find_spec(name) is None for name in _EXTRA):
        raise MissingExtraError("tune")
    # imported here: it takes seconds, and wrong settings need none of it
    from .train import TrainSettings, average, load_base, train, weights

    folder = Path(out)
    checkpoints = folder / _CHECKPOINTS
    if (folder / "config.json").is_file() and not checkpoints.is_dir():
        raise ConfigurationError(f"{folder} holds a model already: choose another folder")
    require(minutes is None or minutes > 0, "minutes", "None or a number above 0", minutes)
    require(epochs > 0, "epochs", "a number above 0", epochs)
    # before a base is downloaded
    for given in (data, first_stage):
        if given is not None and not Path(given).exists():
            raise InputError(f"{given}: No such file or directory")
    collection = read(Path(data), teacher=teacher, held_out=held_out)
    # before a first stage or a teacher takes time
    checkpoint = open_checkpoint(EngineConfig(base))
    if checkpoint.adapter is not None:
        raise ConfigurationError(
            f"{base} is a LoRA adapter: tune what `bge-rerank convert` makes of it"
        )
    source = checkpoint.folder
    model = load_base(source, max_length)
    parts, found, lists, counts = prepare(
        collection,
        teacher=teacher,
        first_stage=Path(first_stage) if first_stage else None,
        held_out=held_out,
        seed=seed,
    )
    if teacher is None:
        with RerankEngine(base, max_length=max_length, normalize=False) as engine:
            lists = blend_labels(lists, with_teacher_logits(lists, engine), _BASE_SHARE)
    before, rate = weights(model), learning_rate(model)
    validation = validation_samples(parts.validation, found)
    steps = train(
        model,
        lists,
        validation,
        checkpoints,
        TrainSettings(rate, minutes=minutes, epochs=epochs, seed=seed),
        has_teacher_logits=teacher is not None,
        show_progress=show_progress,
    )
    is_mean = average(model, before, validation)
    # not in `folder` before it has been measured: a worse model must not look tuned
    measured = checkpoints / "measured"
    model.save_pretrained(str(measured), create_model_card=False)
    report = _before_and_after(parts.held_out, found, base, measured, max_length)
    tuned = Tuned(folder, counts, report)
    if not tuned.is_better:
        model.load_state_dict(before)
    model.save_pretrained(str(folder), create_model_card=False)
    settings = {
        "base": base, "teacher": teacher, "first stage": first_stage or "BM25",
        "steps": steps, "learning rate": f"{rate:.1e}",
        "tuned weights":
            "mean of the base's and the best checkpoint's" if is_mean else "best checkpoint",
        "weights in this folder": "tuned" if tuned.is_better else "the base's",
        "max_length": max_length, "seed": seed,
    }  # fmt: skip
    (folder / "README.md").write_text(model_card(tuned, settings), "utf-8")
    shutil.rmtree(checkpoints)
    return tuned


def learning_rate(model: Any) -> float:
    """A rate that suits an encoder's width: 1e-4 up to 384 values a token, less for wider ones."""
    encoder: Any = model[0].auto_model
    width: int = encoder.config.hidden_size
    return _LEARNING_RATE * min(1.0, _WIDTH / width)


def _before_and_after(
    held_out: Collection, found: Run, base: str, tuned: Path, max_length: int
) -> Report:
    runs = [found]
    for name, model in ((base, base), ("tuned", str(tuned))):
        with RerankEngine(model, max_length=max_length) as engine:
            runs.append(rerank(name, engine, held_out, found))
    return summarize(held_out, runs)


def model_card(tuned: Tuned, settings: dict[str, Any]) -> str:
    """The README of a tuned model: from what, on what, and what came of it."""
    counts, report = tuned.counts, tuned.report
    lines = [
        "---", "library_name: sentence-transformers", "pipeline_tag: text-ranking", "---", "",
        f"# {tuned.folder.name}", "",
        *([] if tuned.is_better else [
            f"**The weights here are those of `{settings['base']}`: the tuned ones were no better "
            "on the held-out questions.**", "",
        ]),
        f"Tuned with bge-rerank-integrations from `{settings['base']}` on {counts.training} "
        f"questions about {counts.documents} documents ({counts.pairs} pairs). "
        f"{counts.validation} other questions chose between checkpoints, and {counts.held_out} "
        "measured:", "",
        *_table(report.rows()), "",
        *_table(report.comparison_rows()), "",
        "| setting | |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _table(rows: Any) -> list[str]:
    headers, *others = rows
    return [
        f"| {' | '.join(headers)} |",
        "|---" * len(headers) + "|",
        *(f"| {' | '.join(row)} |" for row in others),
    ]
