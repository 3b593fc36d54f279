"""Fine-tune the encoder as a cross-encoder on lists of one relevant and some other passages."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertForSequenceClassification

from training.lists import GENERAL, ListSampler, Mix, TrainingList, epoch
from training.packing import Packed, PairEncoder, forward, pack
from training.records import Data, Passage, Question

LOG_EVERY = 20


@dataclass(frozen=True)
class Settings:
    """What a training run depends on beside its data.

    :param steps: one step updates the weights once, from `lists_per_step` lists of one answer and
        `negatives` other passages.
    :param checkpoint_every: steps; the last step always makes a checkpoint.
    """

    mix: Mix = GENERAL
    steps: int = 1000
    lists_per_step: int = 12
    negatives: int = 3
    learning_rate: float = 6e-5
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    pointwise_weight: float = 0.2
    seed: int = 13
    checkpoint_every: int = 100


def learning_rate(settings: Settings, step: int) -> float:
    """Linear warm-up, then linear decay; never 0.

    :param step: 0 to `settings.steps - 1`.
    """
    progress = (step + 0.5) / settings.steps
    return settings.learning_rate * min(
        progress / settings.warmup_share, (1 - progress) / (1 - settings.warmup_share)
    )


def questions_of_steps(
    members: Sequence[tuple[int, Question]], settings: Settings
) -> Iterator[list[int]]:
    """Indices of the questions of each step, epoch after epoch, without end."""
    rng = random.Random(settings.seed)
    order: list[int] = []
    while True:
        if len(order) < settings.lists_per_step:
            order += epoch(members, settings.mix, rng)
        yield order[: settings.lists_per_step]
        order = order[settings.lists_per_step :]


def new_model(start: Path) -> BertForSequenceClassification:
    """The encoder with a head of one logit (fresh if it has none); word embeddings stay fixed.

    Fine-tuning sees a small part of the vocabulary; moving those rows alone would part them from
    their neighbours.
    """
    model = BertForSequenceClassification.from_pretrained(start, num_labels=1)
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    return model


def list_loss(logits: torch.Tensor, sizes: Sequence[int], pointwise_weight: float) -> torch.Tensor:
    """Listwise cross-entropy plus a pointwise term that gives logits an absolute meaning.

    :param logits: `(sum(sizes),)`; the first of each list is the relevant one.
    """
    lists = torch.nn.utils.rnn.pad_sequence(
        list(torch.split(logits, list(sizes))), batch_first=True, padding_value=-1e4
    )
    listwise = functional.cross_entropy(lists, torch.zeros(len(sizes), dtype=torch.long))
    labels = torch.cat([torch.eye(1, size)[0] for size in sizes])
    return listwise + pointwise_weight * functional.binary_cross_entropy_with_logits(logits, labels)


def encode_lists(encoder: PairEncoder, lists: Sequence[TrainingList]) -> tuple[Packed, list[int]]:
    """All pairs of the lists in one packed batch, with the size of each list."""
    pairs = [encoder.encode(one.query, one.texts, one.max_tokens) for one in lists]
    return pack([pair for of_list in pairs for pair in of_list]), [len(p) for p in pairs]


def train(
    data: Data,
    members: Sequence[tuple[int, Question]],
    mined: dict[int, list[Passage]],
    start: Path,
    tokenizer_file: Path,
    out: Path,
    settings: Settings,
) -> list[Path]:
    """Train for `settings.steps` and return the checkpoints, oldest first.

    :param start: folder of the base encoder, or of a checkpoint to go on from.

    Nothing depends on the clock: the same data, settings and number of threads give the same
    weights on one machine.
    """
    torch.manual_seed(settings.seed)
    sampler = ListSampler(data, mined, settings.mix, settings.seed)
    encoder = PairEncoder(Tokenizer.from_file(str(tokenizer_file)))
    model = new_model(start)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay, fused=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(json.dumps(asdict(settings), indent=1) + "\n")
    checkpoints: list[Path] = []
    losses: list[float] = []
    pairs_seen = 0
    questions = questions_of_steps(members, settings)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        lists = [sampler.sample(index, settings.negatives) for index in next(questions)]
        batch, sizes = encode_lists(encoder, [one for one in lists if len(one.texts) > 1])
        loss = list_loss(forward(model, batch), sizes, settings.pointwise_weight)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        pairs_seen += len(batch.lengths)
        done = step + 1
        if done % LOG_EVERY == 0 or done == settings.steps:
            recent = losses[-50:]
            mean_loss = sum(recent) / len(recent)
            print(f"step {done} loss {mean_loss:.4f} pairs {pairs_seen}", flush=True)
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            checkpoints.append(_save(model, out / f"step-{done:06d}"))
    return checkpoints


def _save(model: BertForSequenceClassification, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder
